"""What doctor says of the service: of a real one, on a port."""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fmnist.ops.servers import service
from fmnist.run import Run
from fmnist.serve.guard import Guard
from fmnist.serve.keeper import Keeper
from fmnist.serve.releases import FileSource
from fmnist.serve.service import Service

from ..helpers import Quiet, asgi_server, web_server

Serve = Callable[..., int]


@pytest.fixture
def model(finished: Run, tmp_path: Path) -> Path:
    return shutil.copy2(finished.model, tmp_path / "model.onnx")


@pytest.fixture
def keeper(model: Path) -> Keeper:
    """It looks when it is told to."""
    return Keeper(FileSource(model), None)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves what a keeper has until the test ends; gives the port."""
    with ExitStack() as started:

        def start(keeper: Keeper, key: str | None = None) -> int:
            served = Service(keeper, "fashion-mnist", Guard(None, key))
            started.callback(served.close)
            return started.enter_context(asgi_server(served.app))

        yield start


def test_without_a_model_it_is_off(serve: Serve, keeper: Keeper) -> None:
    assert service(serve(keeper), needed=True) == ("service", "off", "answers; it has no model yet", "")


def test_the_version_that_answers_is_named(serve: Serve, keeper: Keeper) -> None:
    keeper.look()
    assert service(serve(keeper), needed=True) == ("service", "ok", "version model.onnx answers", "")


def test_what_it_complains_of_is_a_warning(serve: Serve, keeper: Keeper, model: Path) -> None:
    keeper.look()
    port = serve(keeper)
    model.write_text("no model")
    keeper.look()
    finding = service(port, needed=True)
    assert finding.state == "warning" and finding.remedy
    assert finding.found.startswith("version model.onnx answers; ") and "is no ONNX model" in finding.found
    model.unlink()
    keeper.look()
    finding = service(port, needed=True)
    assert finding.state == "warning" and finding.remedy
    assert "cannot be read (No such file or directory)" in finding.found


def test_one_that_asks_for_a_key_is_well(serve: Serve, keeper: Keeper) -> None:
    assert service(serve(keeper, key="k" * 16), needed=True).state == "ok"


@pytest.mark.parametrize(("needed", "state"), [(False, "off"), (True, "bad")])
def test_one_that_is_away_is_bad_on_the_platform_alone(needed: bool, state: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert service(port, needed=needed).state == state


def test_another_program_on_its_port_is_noservice() -> None:
    with web_server(Quiet) as address:
        finding = service(int(address.rpartition(":")[2]), needed=False)
    assert (finding.state, finding.found) == ("off", "does not run")
