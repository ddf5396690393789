"""What the fault tests share: commands in processes of their own, and the count of what is there."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist.checkpoint import read_checkpoint
from fmnist.files import is_locked
from fmnist.registry import make_database
from fmnist.run import Run

from ..helpers import DATA, PATIENCE

# The trainings here are so small that threads cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
EPOCHS = 4
Fault = dict[str, Any]
TRAIN = ("train", "--epochs", str(EPOCHS), "--batch-size", "64")
RESUME = ("train", "--resume", "latest")


class Warm:
    """The process of warm.py, and commands forked from it."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "socket"
        command = [sys.executable, str(Path(__file__).with_name("warm.py")), str(self.address)]
        environment = os.environ | {"FMNIST_DATA": str(DATA), "FMNIST_DOWNLOAD": "no"}
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def start(self, request: dict[str, Any]) -> socket.socket:
        until = time.monotonic() + 120
        while not self.address.exists():
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(300)
        connection.connect(str(self.address))
        connection.sendall(json.dumps(request).encode() + b"\n")
        return connection


class Command:
    """A command that goes on."""

    def __init__(self, warm: Warm, folder: Path, request: dict[str, Any]) -> None:
        self.out, self.err = folder / "out", folder / "err"
        with warm.start(request | {"out": str(self.out), "err": str(self.err)}) as connection:
            self._answers = connection.makefile()
        self.pid = int(json.loads(self._answers.readline())["pid"])

    def communicate(self) -> tuple[int, str, str]:
        """(exit code, stdout, stderr), once it has ended."""
        with self._answers:
            code = int(json.loads(self._answers.readline())["code"])
        return code, self.out.read_text(), self.err.read_text()

    def send_signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Place:
    """A workspace of its own; its commands run in processes of their own."""

    def __init__(self, home: Path, warm: Warm, **settings: str) -> None:
        self.home, self._warm, self._commands = home, warm, 0
        own = {"FMNIST_HOME": str(home), "FMNIST_DATA": str(DATA), "FMNIST_DOWNLOAD": "no"}
        self.settings = own | {"FMNIST_SYNC_WAIT": str(PATIENCE)} | settings

    def start(self, *arguments: str, fault: Fault | None = None) -> Command:
        """`fault`: what befalls it; see warm.py."""
        self._commands += 1
        folder = self.home / f"command{self._commands}"
        folder.mkdir(parents=True, exist_ok=True)
        return Command(self._warm, folder, {"arguments": arguments, "environment": self.settings, "fault": fault})

    def run(self, *arguments: str, fault: Fault | None = None) -> tuple[int, str, str]:
        return self.start(*arguments, fault=fault).communicate()

    def do(self, *arguments: str) -> str:
        """Run what has to succeed; gives its stdout."""
        code, out, err = self.run(*arguments)
        assert code == 0, f"{arguments}: {code}\n{err}"
        return out

    def start_cold(self, *arguments: str) -> "subprocess.Popen[str]":
        """With its imports, as a user starts it."""
        command = [sys.executable, "-m", "fmnist", *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=os.environ | self.settings, text=True, **pipes)

    def wait_for(self, pattern: str) -> None:
        until = time.monotonic() + PATIENCE
        while not list(self.home.glob(pattern)):
            assert time.monotonic() < until, f"no {pattern} in {self.home}"
            time.sleep(0.01)

    def wait_for_sent(self, lane: str, records: int) -> None:
        """Until the lane has so many records of the run."""
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError, ValueError, KeyError):  # there is no run, or nothing was sent yet
                if json.loads(self.the_run.shipping.read_text())[lane]["sent"] >= records:
                    return
            assert time.monotonic() < until, f"{lane} does not get {records} records"
            time.sleep(0.01)

    def kill_shipper(self) -> None:
        """With -9, if one is at work."""
        for lock in self.home.glob("runs/*/shipping.lock"):
            if (pid := re.match(r"process (\d+)", lock.read_text())) and is_locked(lock):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid[1]), signal.SIGKILL)

    @property
    def runs(self) -> list[Run]:
        return [Run(path.parent) for path in (self.home / "runs").glob("*/config.json")]

    @property
    def the_run(self) -> Run:
        (run,) = self.runs
        return run

    @property
    def weights(self) -> str:
        """A hash of all that the last checkpoint holds."""
        return weights_of(self.the_run)

    def check_tracked_once(self, count: int = 1) -> None:
        """Of each of the `count` runs every epoch once in MLflow and in TensorBoard, and one registered version."""
        steps = list(range(1, EPOCHS + 1))
        uri = self.settings.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.home / 'mlflow.db'}"
        experiment = self.settings.get("MLFLOW_EXPERIMENT_NAME", "fashion-mnist")
        model = self.settings.get("FMNIST_MODEL_NAME", "fashion-mnist")
        client: Any = mlflow.MlflowClient(uri, uri)
        found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        assert sorted(tracked.info.run_name for tracked in found) == sorted(run.id for run in self.runs)
        versions = client.search_model_versions(f"name = '{model}'")
        assert len(found) == len(versions) == len({version.run_id for version in versions}) == count
        for tracked in found:
            assert tracked.info.status == "FINISHED"
            for name in ("val_accuracy", "images_per_second", "train_loss"):
                assert [point.step for point in client.get_metric_history(tracked.info.run_id, name)] == steps
            assert len(client.list_artifacts(tracked.info.run_id, "confusion_matrix/validation")) == 2 * EPOCHS
            guidance = {"images": 0, "scalars": 0}
            logs = str(self.home / "tensorboard" / tracked.info.run_name)
            events: Any = EventAccumulator(logs, size_guidance=guidance).Reload()
            assert [point.step for point in events.Scalars("val_accuracy")] == steps
            assert [image.step for image in events.Images("confusion_matrix/validation")] == steps


def weights_of(run: Run) -> str:
    """A hash of the tensors in the run's checkpoint."""
    digest, checkpoint = hashlib.sha256(), read_checkpoint(run.checkpoint)
    for tensors in (checkpoint.state, checkpoint.kept):
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        warm = Warm(Path(folder))
        yield warm
        warm.process.kill()
        warm.process.wait()


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's, with nothing in it: to make one takes seconds."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    make_database(f"sqlite:///{path}")
    return path


@pytest.fixture
def new_place(tmp_path: Path, warm: Warm, database: Path) -> Callable[..., Place]:
    """Makes a workspace, its MLflow empty."""

    def make(name: str = "home", **settings: str) -> Place:
        (tmp_path / name).mkdir()
        shutil.copy(database, tmp_path / name / "mlflow.db")
        return Place(tmp_path / name, warm, **settings)

    return make


@pytest.fixture
def place(new_place: Callable[..., Place]) -> Place:
    return new_place()


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Place:
    """Where a training went undisturbed; read it, do not change it."""
    place = Place(tmp_path_factory.mktemp("undisturbed"), warm)
    place.do(*TRAIN)
    place.check_tracked_once()
    return place


@pytest.fixture(scope="session")
def undisturbed(tracked: Place) -> str:
    """The weights that a training ends with."""
    return tracked.weights
