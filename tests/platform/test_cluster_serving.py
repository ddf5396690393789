"""`fmnist serve --cluster` on a real Ray Serve: two replicas that answer as one service does."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests

from fmnist.cluster.serving import ONGOING
from fmnist.data.dataset import Dataset
from fmnist.files import sha256_of
from fmnist.predictor import Predictor
from fmnist.registry import Registry
from fmnist.run import Run
from fmnist.serve.wiring import make_service
from fmnist.settings import Settings
from fmnist.tracking.journal import Journal
from fmnist.tracking.mlflow_sink import MlflowSink
from fmnist.tracking.records import golden_batch
from fmnist.workspace import Workspace

from ..helpers import free_port, leaning
from ..serve.conftest import ask
from .test_service import NAME, Load, Process, promote

pytestmark = pytest.mark.filterwarnings("ignore")
SWAPS = 12


@pytest.fixture(scope="module")
def workspace(journalled: Run, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two versions, each of which takes everything for its own class, in a SQLite registry."""
    home = tmp_path_factory.mktemp("cluster")
    records = Journal(journalled.journal).read()
    for number in (1, 2):
        run = Run(home / "runs" / f"20260101-000000-0000{number}")
        shutil.copytree(journalled.folder, run.folder)
        leaning(run.model, number, run.model)
        golden = golden_batch(dataset.validation, Predictor(run.model).probabilities)
        end = records[-1] | {"model_sha256": sha256_of(run.model), "golden": golden}
        sink = MlflowSink(run.folder, f"sqlite:///{home / 'mlflow.db'}", NAME, NAME, home / "artifacts")
        for record in ({**records[0], "run_id": run.id}, records[1], end):
            sink.send(record)
    return Workspace(Settings(home=home, poll_seconds=0.1))


@pytest.fixture(scope="module")
def registry(workspace: Workspace) -> Registry:
    return workspace.registry


class Replicated(Process):
    def __init__(self, home: Path, *options: str) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.log = home / "service.log"
        command = ["fmnist", "serve", "--cluster", "--port", str(self.port), *options]
        super().__init__(self.log, *command, FMNIST_HOME=str(home), FMNIST_POLL_SECONDS="0.1")
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.2)

    def answers(self) -> bool:
        """Whether a replica does: before there is one, Ray Serve's own proxy says 404."""
        try:
            return requests.get(f"{self.uri}/ping", timeout=20).ok
        except requests.RequestException:
            return False

    def replicas(self) -> list[psutil.Process]:
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in family if one.name().startswith("ray::ServeRepl")]

    def versions(self, count: int = 30) -> set[str]:
        """Those that answer, of so many requests."""
        asked = [requests.post(f"{self.uri}/predict", data=bytes(784), timeout=60).json() for _ in range(count)]
        return {answer["model"]["version"] for answer in asked}


@pytest.fixture(scope="module")
def service(workspace: Workspace, registry: Registry) -> Iterator[Replicated]:
    promote(registry, 1)
    running = Replicated(workspace.settings.home, "--replicas", "2")
    yield running
    if running.process.poll() is None:
        running.end()


def test_its_answers_are_those_of_a_plain_service(
    service: Replicated, workspace: Workspace, registry: Registry, dataset: Dataset
) -> None:
    plain = make_service(workspace, "champion", "127.0.0.1", service.port)
    plain.keeper.look()
    image = np.ascontiguousarray(dataset.test.images[0]).tobytes()
    as_json = {"content-type": "application/json"}
    inputs = json.dumps({"inputs": dataset.test.images[:3].tolist()}).encode()
    tensor = {"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": list(image)}
    questions: list[tuple[Any, ...]] = [
        ("POST", "/predict", image),
        ("POST", "/predict", inputs, as_json),
        ("POST", "/predict", b"{", as_json),
        ("POST", "/predict", image, {"host": "attacker.example"}),
        ("POST", "/predict", image, {"origin": "http://attacker.example"}),
        ("POST", "/invocations", inputs, as_json),
        ("POST", f"/v2/models/{NAME}/infer", json.dumps({"inputs": [tensor]}).encode(), as_json),
        ("GET", "/ping"),
        ("GET", "/v2/health/ready"),
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/nowhere"),
        ("DELETE", "/predict"),
    ]
    for method, path, *rest in questions:
        body, further = (*rest, {})[:2] if rest else (b"", {})
        usual = {"host": f"127.0.0.1:{service.port}", "x-request-id": "one", "accept-encoding": "identity"}
        headers = usual | further
        wanted = asyncio.run(ask(plain, method, path, body, headers))
        got = requests.request(method, service.uri + path, data=body, headers=headers, timeout=60)
        assert (got.status_code, got.content) == (wanted.status, wanted.body), (method, path)
        assert {name: got.headers.get(name) for name in wanted.headers} == wanted.headers, (method, path)
    plain.close()


def test_no_request_fails_while_the_champion_changes(service: Replicated, registry: Registry) -> None:
    with Load(service.uri, [bytes(784), bytes(784 * 40)]) as load:
        for swap in range(SWAPS):
            wanted = 1 + swap % 2
            promote(registry, wanted)
            while service.versions(10) != {str(wanted)}:
                pass
    assert load.failures == []
    assert load.answers.keys() == {"1", "2"}


def test_a_replica_that_is_killed_is_replaced(service: Replicated) -> None:
    before = {one.pid for one in service.replicas()}
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    while len(now := {one.pid for one in service.replicas()} - {min(before)}) < 2:
        time.sleep(0.2)
    assert len(now & before) == 1
    assert service.versions() == {"2"}


def test_who_waits_for_an_answer_gets_it_when_it_is_told_to_stop(service: Replicated) -> None:
    family = psutil.Process(service.process.pid).children(recursive=True)
    with Load(service.uri, [bytes(784 * 1000)]) as load:
        while not load.answers:
            time.sleep(0.05)
        load._ending.set()  # each asks once more at most, while it ends
        code = service.end()
    assert code == 0
    assert load.failures == []
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert '"message": "a model answers"' in service.log.read_text()


def test_more_requests_than_a_replica_is_meant_for_bring_another(workspace: Workspace, registry: Registry) -> None:
    promote(registry, 1)
    service = Replicated(workspace.settings.home, "--replicas", "1..2")
    try:
        assert len(service.replicas()) == 1
        with Load(service.uri, [bytes(784 * 300)], clients=3 * ONGOING) as load:
            while len(service.replicas()) < 2:
                time.sleep(0.2)
    finally:
        assert service.end() == 0
    assert load.failures == []
