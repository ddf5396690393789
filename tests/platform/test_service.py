"""`fmnist serve` on a real MLflow server, over REST: hot swap under load, the registry away, a soak."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests

from fmnist.data.dataset import Dataset
from fmnist.files import sha256_of
from fmnist.predictor import Predictor
from fmnist.registry import Registry
from fmnist.run import Run
from fmnist.tracking.journal import Journal
from fmnist.tracking.mlflow_sink import MlflowSink
from fmnist.tracking.records import golden_batch

from ..helpers import free_port, leaning

pytestmark = pytest.mark.filterwarnings("ignore")
NAME = "fashion-mnist"
SWAPS, SOAK_SECONDS, CLIENTS = 200, 120, 4
GROWTH = 8 << 20
"""Bytes by which two minutes of requests may make the service larger: a leak of 100 bytes a request would be more."""


class Process:
    """A server as a process, with what it says in a file."""

    def __init__(self, log: Path, *command: str, **environment: str) -> None:
        self._log, self._command = log, [sys.executable, "-P", "-m", *command]
        given = {name: value for name, value in os.environ.items() if not name.startswith(("FMNIST_", "MLFLOW_"))}
        self._environment = given | environment
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)

    def wait_for(self, url: str) -> Any:
        while True:
            assert self.process.poll() is None, self._log.read_text()
            try:
                reply = requests.get(url, timeout=20)
                if reply.ok:
                    return reply
            except (requests.ConnectionError, requests.Timeout):
                time.sleep(0.1)

    def end(self) -> int:
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        code = self.process.wait(60)
        for left in family:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        return code


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, str, Path]]:
    """It keeps files itself, and hands them out."""
    home = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options += [
        "--backend-store-uri",
        f"sqlite:///{home / 'mlflow.db'}",
        "--artifacts-destination",
        str(home / "files"),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = Process(home / "log", "mlflow", "server", *options, **quiet)
    server.wait_for(f"{uri}/health")
    yield server, uri, home / "files"
    server.end()


@pytest.fixture(scope="module")
def registry(
    mlflow_server: Any, journalled: Run, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Registry:
    """Two versions, each of which takes everything for its own class."""
    home, uri = tmp_path_factory.mktemp("runs"), mlflow_server[1]
    records = Journal(journalled.journal).read()
    for number in (1, 2):
        run = Run(home / f"20260101-000000-0000{number}")
        shutil.copytree(journalled.folder, run.folder)
        leaning(run.model, number, run.model)
        golden = golden_batch(dataset.validation, Predictor(run.model).probabilities)
        end = records[-1] | {"model_sha256": sha256_of(run.model), "golden": golden}
        sink = MlflowSink(run.folder, uri, NAME, NAME, home)
        for record in ({**records[0], "run_id": run.id}, records[1], end):
            sink.send(record)
    return Registry(uri, NAME)


class Service(Process):
    def __init__(self, home: Path, uri: str) -> None:
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        environment = {"FMNIST_HOME": str(home), "FMNIST_POLL_SECONDS": "0.1", "MLFLOW_TRACKING_URI": uri}
        super().__init__(home.parent / "service.log", "fmnist", "serve", "--port", str(port), **environment)
        self.until(lambda about: about["looked"])

    def status(self) -> Any:
        return self.wait_for(f"{self.uri}/status").json()

    def until(self, holds: Any) -> Any:
        while not holds(about := self.status()):
            time.sleep(0.02)
        return about


@pytest.fixture
def service(registry: Registry, tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path / "var", registry.uri)
    yield running
    assert running.end() == 0


class Load:
    """Clients that ask all the time, and check every answer."""

    def __init__(self, uri: str, bodies: list[bytes], clients: int = CLIENTS) -> None:
        self.answers: dict[str, int] = {}
        self.failures: list[Any] = []
        self._uri, self._bodies, self._ending = uri, bodies, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        with requests.Session() as session:
            number = 0
            while not self._ending.is_set():
                number += 1
                reply = session.post(f"{self._uri}/predict", data=self._bodies[number % len(self._bodies)], timeout=60)
                content = reply.json()
                version = content.get("model", {}).get("version")
                labels = {answer["label"] for answer in content.get("predictions", [])}
                if reply.status_code != 200 or labels != {version}:  # version N takes everything for class N
                    self.failures.append((reply.status_code, content))
                self.answers[version] = self.answers.get(version, 0) + 1

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()


def promote(registry: Registry, number: int) -> None:
    import mlflow

    mlflow.MlflowClient(registry.uri, registry.uri).set_registered_model_alias(NAME, "champion", str(number))


def test_two_hundred_swaps_under_load_and_every_answer_is_its_versions(registry: Registry, service: Service) -> None:
    promote(registry, 1)
    service.until(lambda about: about["model"]["version"] == "1")
    first = service.status()["swaps"]
    with Load(service.uri, [bytes(784), bytes(784 * 40)]) as load:
        for swap in range(1, SWAPS + 1):
            number = 1 + swap % 2
            promote(registry, number)
            service.until(lambda about, wanted=str(number): about["model"]["version"] == wanted)
    assert load.failures == []
    assert load.answers.keys() == {"1", "2"}
    assert service.status()["swaps"] == first + SWAPS


def test_a_model_whose_file_was_changed_is_refused_and_the_old_one_stays(
    registry: Registry, service: Service, mlflow_server: Any
) -> None:
    promote(registry, 1)
    service.until(lambda about: about["model"]["version"] == "1")
    known = registry.find("2").sha256
    (wanted,) = [path for path in mlflow_server[2].glob("**/model.onnx") if sha256_of(path) == known]
    content = wanted.read_bytes()
    try:
        wanted.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        promote(registry, 2)
        about = service.until(lambda about: about["refusal"])
        assert about["model"]["version"] == "1"
        assert about["refusal"]["version"] == "2"
        assert "its file has the SHA-256" in about["refusal"]["reason"]
        assert "fmnist_model_refusals 1.0" in requests.get(f"{service.uri}/metrics", timeout=20).text
    finally:
        wanted.write_bytes(content)
        promote(registry, 1)


def test_with_the_registry_away_it_goes_on_also_across_a_restart(
    registry: Registry, service: Service, mlflow_server: Any
) -> None:
    server, uri, _ = mlflow_server
    promote(registry, 2)
    service.until(lambda about: about["model"]["version"] == "2")
    server.end()
    try:
        about = service.until(lambda about: about["registry_trouble"])
        assert about["ready"]
        assert uri in about["registry_trouble"]
        assert service.end() == 0
        service.start()
        about = service.until(lambda about: about["model"])
        assert (about["model"]["version"], about["model"]["from_cache"]) == ("2", True)
        reply = requests.post(f"{service.uri}/predict", data=bytes(784), timeout=20).json()
        assert reply["predictions"][0]["label"] == "2"
        assert "fmnist_registry_up 0.0" in requests.get(f"{service.uri}/metrics", timeout=20).text
    finally:
        server.start()
        server.wait_for(f"{uri}/health")
    service.until(lambda about: not about["registry_trouble"])
    promote(registry, 1)
    about = service.until(lambda about: about["model"]["version"] == "1")
    assert not about["model"]["from_cache"]


def test_two_minutes_of_requests_leave_it_no_larger(service: Service, dataset: Dataset) -> None:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(dataset.test.images[0]).resize((300, 400)).save(file, "PNG")
    bodies = [bytes(784), bytes(784 * 40), np.ascontiguousarray(dataset.test.images[:3]).tobytes(), file.getvalue()]
    process = psutil.Process(service.process.pid)
    with Load(service.uri, bodies) as load:
        time.sleep(SOAK_SECONDS / 4)
        before = process.memory_info().rss
        time.sleep(SOAK_SECONDS * 3 / 4)
    assert process.memory_info().rss - before < GROWTH
    assert load.failures == []
