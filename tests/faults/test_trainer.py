"""The trainer is killed with -9 at random moments; what it committed is all there, once, and nothing else.

`make test-faults FULL=1` tries 20 times, without FULL twice.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
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


def check_tracked_once(home: Path, run: Run) -> None:
    """Every epoch once in MLflow and in TensorBoard, and one registered version."""
    steps = list(range(1, EPOCHS + 1))
    client: Any = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
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
    started = time.monotonic()
    done = fmnist(tmp_path, *TRAIN, "--json", **away)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert time.monotonic() - started < 40
    assert "not all of it has been sent" in done.stderr
    assert "send the rest with: fmnist sync" in done.stderr
    told = fmnist(tmp_path, "sync", **away)
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1].startswith(f"fmnist: run {result['run_id']}, mlflow http://127.0.0.1:9: ")
    assert fmnist(tmp_path, "sync").returncode == 0
    check_tracked_once(tmp_path, the_run(tmp_path))
