"""What the fault tests share: commands in processes of their own, an MLflow server, and the count of what is there."""

import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist.checkpoint import read_checkpoint
from fmnist.files import is_locked
from fmnist.run import Run

DATA = Path(__file__).parents[1] / "data"
EPOCHS = 12
TRAIN = ("train", "--epochs", str(EPOCHS), "--batch-size", "64")


class Place:
    """A workspace of its own; its commands run in processes of their own."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.environment = os.environ | {"FMNIST_HOME": str(home), "FMNIST_DATA": str(DATA), "FMNIST_DOWNLOAD": "no"}
        self.environment |= settings

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "fmnist", *arguments]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments)
        out, err = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def wait_for(self, pattern: str) -> None:
        until = time.monotonic() + 60
        while not list(self.home.glob(pattern)):
            assert time.monotonic() < until, f"no {pattern} in {self.home}"
            time.sleep(0.02)

    def kill_shipper(self) -> None:
        """With -9, if one is at work."""
        for lock in self.home.glob("runs/*/shipping.lock"):
            if (pid := re.match(r"process (\d+)", lock.read_text())) and is_locked(lock):
                os.kill(int(pid[1]), signal.SIGKILL)

    @property
    def the_run(self) -> Run:
        (folder,) = (path for path in (self.home / "runs").iterdir() if path.is_dir())
        return Run(folder)

    @property
    def weights(self) -> str:
        """A hash of all that the last checkpoint holds."""
        digest = hashlib.sha256()
        for name, tensor in sorted(read_checkpoint(self.the_run.checkpoint).state.items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def check_tracked_once(self) -> None:
        """Every epoch once in MLflow and in TensorBoard, and one registered version."""
        steps = list(range(1, EPOCHS + 1))
        uri = self.environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.home / 'mlflow.db'}"
        client: Any = mlflow.MlflowClient(uri, uri)
        (tracked,) = client.search_runs([client.get_experiment_by_name("fashion-mnist").experiment_id])
        assert tracked.info.status == "FINISHED"
        for name in ("val_accuracy", "images_per_second", "train_loss"):
            assert [point.step for point in client.get_metric_history(tracked.info.run_id, name)] == steps
        assert len(client.list_artifacts(tracked.info.run_id, "confusion_matrix/validation")) == 2 * EPOCHS
        assert len(client.search_model_versions("name = 'fashion-mnist'")) == 1
        guidance = {"images": 0, "scalars": 0}
        logs = str(self.home / "tensorboard" / self.the_run.id)
        events: Any = EventAccumulator(logs, size_guidance=guidance).Reload()
        assert [point.step for point in events.Scalars("val_accuracy")] == steps
        assert [image.step for image in events.Images("confusion_matrix/validation")] == steps


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights that a training ends with."""
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    done = place.run(*TRAIN)
    assert done.returncode == 0, done.stderr
    place.check_tracked_once()
    return place.weights


class Server:
    """A real MLflow server that is started, killed and started again at one address."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address, self._folder = f"http://127.0.0.1:{self.port}", folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        database, files = f"sqlite:///{self._folder / 'server.db'}", str(self._folder / "files")
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database]
        command += ["--artifacts-destination", files, "--workers", "1", "--port", str(self.port)]
        quiet = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, env=quiet, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.address}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.2)
        pytest.fail(f"the MLflow server did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def signal(self, number: signal.Signals) -> None:
        """To the server and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    yield server
    server.kill()
