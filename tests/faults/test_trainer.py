"""The trainer is killed with -9 at random moments; what it committed is all there, once, and nothing else.

`make test-faults FULL=1` tries 20 times, without FULL twice.
"""

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist.checkpoint import read_checkpoint
from fmnist.run import Run

DATA = Path(__file__).parents[1] / "data"
TRIES = 20 if os.environ.get("FULL") else 2
EPOCHS = 30
TRAIN = ("train", "--epochs", str(EPOCHS), "--batch-size", "64")

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future


def environment(home: Path, **more: str) -> dict[str, str]:
    return os.environ | {"FMNIST_HOME": str(home), "FMNIST_DATA": str(DATA), "FMNIST_DOWNLOAD": "no"} | more


def fmnist(home: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fmnist", *arguments]
    return subprocess.run(command, env=environment(home, **more), capture_output=True, text=True, check=False)


def the_run(home: Path) -> Run:
    (folder,) = (home / "runs").iterdir()
    return Run(folder)


def weights(run: Run) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(read_checkpoint(run.checkpoint).state.items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_tracked_once(home: Path, run: Run, uri: str | None = None) -> None:
    """Every epoch once in MLflow and in TensorBoard, and one registered version."""
    steps = list(range(1, EPOCHS + 1))
    uri = uri or f"sqlite:///{home / 'mlflow.db'}"
    client: Any = mlflow.MlflowClient(uri, uri)
    (tracked,) = client.search_runs([client.get_experiment_by_name("fashion-mnist").experiment_id])
    assert tracked.info.status == "FINISHED"
    for name in ("val_accuracy", "images_per_second", "train_loss"):
        assert [point.step for point in client.get_metric_history(tracked.info.run_id, name)] == steps
    assert len(client.list_artifacts(tracked.info.run_id, "confusion_matrix/validation")) == 2 * EPOCHS
    assert len(client.search_model_versions("name = 'fashion-mnist'")) == 1
    events: Any = EventAccumulator(
        str(home / "tensorboard" / run.id), size_guidance={"images": 0, "scalars": 0}
    ).Reload()
    assert [point.step for point in events.Scalars("val_accuracy")] == steps
    assert [image.step for image in events.Images("confusion_matrix/validation")] == steps


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    home = tmp_path_factory.mktemp("undisturbed")
    done = fmnist(home, *TRAIN)
    assert done.returncode == 0, done.stderr
    check_tracked_once(home, the_run(home))
    return weights(the_run(home))


@pytest.mark.parametrize("seed", range(TRIES))
def test_kill_9_at_a_random_moment_and_resume(tmp_path: Path, undisturbed: str, seed: int) -> None:
    chance = random.Random(seed)
    command = [sys.executable, "-m", "fmnist", *TRAIN]
    for part in (command, [sys.executable, "-m", "fmnist", "train", "--resume", "latest"]):
        process = subprocess.Popen(
            part, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while not list(tmp_path.glob("runs/*/lock")) and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 12))
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = fmnist(tmp_path, "train", "--resume", "latest")
    assert done.returncode == 0, done.stderr
    assert fmnist(tmp_path, "sync").returncode == 0
    run = the_run(tmp_path)
    assert weights(run) == undisturbed
    check_tracked_once(tmp_path, run)


def test_a_server_that_is_away_all_the_time(tmp_path: Path) -> None:
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "FMNIST_SYNC_WAIT": "3"}
    done = fmnist(tmp_path, *TRAIN, "--json", **away)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert "not all of it has been sent" in done.stderr
    assert "send the rest with: fmnist sync" in done.stderr
    told = fmnist(tmp_path, "sync", **away)
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1].startswith(f"fmnist: run {result['run_id']}, mlflow http://127.0.0.1:9: ")
    assert fmnist(tmp_path, "sync").returncode == 0
    check_tracked_once(tmp_path, the_run(tmp_path))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """(address, what starts an MLflow server there)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, place = f"http://127.0.0.1:{port}", tmp_path / "server"
    place.mkdir()
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        store = (
            "--backend-store-uri",
            f"sqlite:///{place / 'server.db'}",
            "--artifacts-destination",
            str(place / "files"),
        )
        command = [sys.executable, "-m", "mlflow", "server", *store, "--workers", "1", "--port", str(port)]
        quiet = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (place / "log").open("ab") as log:
            started.append(subprocess.Popen(command, env=quiet, stdout=log, stderr=log, start_new_session=True))
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"{address}/health", timeout=5)
                return
            time.sleep(0.2)

    yield address, start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_that_comes_late(tmp_path: Path, server: tuple[str, Callable[[], None]]) -> None:
    address, start = server
    home, there = tmp_path / "home", {"MLFLOW_TRACKING_URI": address}
    command = [sys.executable, "-m", "fmnist", *TRAIN]
    training = subprocess.Popen(command, env=environment(home, **there), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not list(home.glob("runs/*/journal.jsonl")) and time.monotonic() < until:
        time.sleep(0.02)
    start()
    _, errors = training.communicate(timeout=180)
    assert training.returncode == 0, errors
    assert fmnist(home, "sync", **there).returncode == 0
    run = the_run(home)
    check_tracked_once(home, run, address)
    (version,) = json.loads(fmnist(home, "models", "--json", **there).stdout)["versions"]
    assert (version["aliases"], version["run_id"]) == (["champion"], run.id)
    scored = fmnist(home, "evaluate", "champion", "--json", **there)
    assert json.loads(scored.stdout)["accuracy"] == pytest.approx(version["scores"]["test_accuracy"], abs=1e-6)
