"""Models that may be served, and a way to ask the service without a network."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fmnist.data.dataset import Dataset
from fmnist.files import sha256_of
from fmnist.run import Run
from fmnist.serve.guard import Guard
from fmnist.serve.keeper import Keeper
from fmnist.serve.limits import Limits
from fmnist.serve.releases import Absent, Release
from fmnist.serve.service import Service
from fmnist.tracking.records import golden_batch

from ..helpers import leaning


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Ask = Callable[..., Reply]


@pytest.fixture(scope="session")
def models(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models; the first takes everything for a T-shirt, the second for a Trouser."""
    folder = tmp_path_factory.mktemp("models")
    return [leaning(finished.model, to, folder / f"{to}.onnx") for to in (0, 1)]


class ListSource:
    """A registry in memory: what it names can be changed, and it can go away."""

    def __init__(self, *paths: Path, golden: list[Any] | None = None) -> None:
        self.paths, self.now, self.away = list(paths), 0, False
        self.golden = golden
        self.sha256 = [sha256_of(path) for path in paths]

    def find(self) -> Release | None:
        if self.away:
            raise Absent("MLflow at http://x", "does not answer; start it")
        if self.now >= len(self.paths):
            return None
        return Release(str(self.now + 1), self.sha256[self.now], has_golden=self.golden is not None)

    def fetch(self, release: Release, folder: Path) -> Path:
        return self.paths[int(release.version) - 1]

    def report(self, release: Release, name: str) -> Any:
        return self.golden[int(release.version) - 1] if self.golden and "golden" in name else None


@pytest.fixture
def source(models: list[Path]) -> ListSource:
    return ListSource(*models)


@pytest.fixture
def golden(models: list[Path], dataset: Dataset) -> list[Any]:
    from fmnist.predictor import Predictor

    return [golden_batch(dataset.validation, Predictor(path).probabilities) for path in models]


@pytest.fixture
def service(source: ListSource) -> Iterator[Service]:
    """With the first model, as after a start."""
    service = make_service(source)
    yield service
    service.close()


@pytest.fixture(scope="module")
def trained(finished: Run) -> Iterator[Service]:
    """With a model that tells pictures apart."""
    service = make_service(ListSource(finished.model), Limits(images=300))
    yield service
    service.close()


def make_service(source: Any, limits: Limits | None = None, key: str | None = None) -> Service:
    keeper = Keeper(source, None, missing="fashion-mnist has no champion yet; train one: fmnist train")
    keeper.look()
    keeper.looked = True
    return Service(keeper, "fashion-mnist", Guard(["localhost"], key), limits or Limits())


async def ask(
    service: Service, method: str, path: str, body: bytes | list[bytes] = b"", headers: dict[str, str] | None = None
) -> Reply:
    """One request, its body in the pieces given; after them the client is gone."""
    pieces = body if isinstance(body, list) else [body]
    given = {"host": "localhost", **(headers or {})}
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
    }
    events = [
        {"type": "http.request", "body": piece, "more_body": number + 1 < len(pieces)}
        for number, piece in enumerate(pieces)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return events.pop(0) if events else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await service.app(scope, receive, send)
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]} if sent else {}
    return Reply(sent[0]["status"] if sent else 0, answered, b"".join(part.get("body", b"") for part in sent[1:]))


@pytest.fixture
def call(service: Service) -> Ask:
    """Asks the service: call(method, path, body, headers) -> Reply."""
    return lambda *arguments, **named: asyncio.run(ask(service, *arguments, **named))


@pytest.fixture
def picture(dataset: Dataset) -> Any:
    """uint8 [28, 28], an image of the data set."""
    return np.ascontiguousarray(dataset.test.images[0])
