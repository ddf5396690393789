"""Trainings by two workers on a real Ray: what befalls them, and what is left."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from fmnist.checkpoint import read_checkpoint
from fmnist.cluster.afterwards import OWNER
from fmnist.run import Run
from fmnist.tracking.journal import Journal

from ..helpers import environment_of, until

WAIT = 300  # seconds; a busy machine is no fault
TRAIN = ("train", "--batch-size", "64", "--workers", "2")

pytestmark = pytest.mark.filterwarnings("ignore")


class Place:
    """A workspace, and commands in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = environment_of(home) | {"OMP_NUM_THREADS": "1"}

    def start(self, *arguments: str, **settings: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "fmnist", *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=self.environment | settings, **pipes)

    def do(self, *arguments: str, **settings: str) -> tuple[str, str]:
        """(stdout, stderr) of what has to succeed."""
        process = self.start(*arguments, **settings)
        out, err = process.communicate(timeout=WAIT)
        assert process.returncode == 0, err
        return out, err

    @property
    def run(self) -> Run:
        (run,) = [Run(path.parent) for path in (self.home / "runs").glob("*/config.json")]
        return run

    def wait_for_epoch(self, number: int, process: "subprocess.Popen[str]") -> None:
        def there() -> bool:
            return (
                bool(list(self.home.glob("runs/*/checkpoint"))) and read_checkpoint(self.run.checkpoint).epoch >= number
            )

        until(there, process)

    def check_once(self, epochs: int) -> None:
        """Every epoch is there once."""
        keys = [record["key"] for record in Journal(self.run.journal).read()]
        assert keys == ["start", *(f"epoch/{number}" for number in range(1, epochs + 1)), "end"]


def below(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """All that a command has begun, but for what sends its records."""
    found = psutil.Process(process.pid).children(recursive=True)
    return [one for one in found if not {"sync", "fmnist"} <= set(words(one))]


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def workers(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return [one for one in below(process) if "RayTrainWorker" in " ".join(words(one))]


def check_gone(processes: list[psutil.Process]) -> None:
    _, left = psutil.wait_procs(processes, timeout=30)
    assert not [words(one) for one in left]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "var")


def test_two_workers_train_one_run_and_one_that_is_killed_is_replaced(place: Place) -> None:
    process = place.start(*TRAIN, "--epochs", "20", "--json")
    place.wait_for_epoch(2, process)
    workers(process)[-1].send_signal(signal.SIGKILL)
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert result["epochs"] == 20
    assert result["val"]["accuracy"] > 0.4
    assert "by 2 workers" in err
    assert re.search(r"a worker was lost \(.*\) and is replaced; its epoch begins again", err)
    assert not re.search(r"\(raylet|WARN|INFO|pid=", err), err  # of Ray's own
    place.check_once(20)
    assert place.run.about.workers == 2
    assert place.run.result is not None and place.run.result.phases["starting workers"] > 0
    records = read_checkpoint(place.run.checkpoint).records
    assert records[-1]["scores"]["train_loss"] < records[0]["scores"]["train_loss"] / 2
    client: Any = mlflow.MlflowClient(f"sqlite:///{place.home / 'mlflow.db'}")
    (tracked,) = client.search_runs([client.get_experiment_by_name("fashion-mnist").experiment_id])
    assert tracked.data.tags["fmnist.workers"] == "2"
    assert tracked.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(tracked.info.run_id, "val_loss")] == list(range(1, 21))
    files = {file.path for file in client.list_artifacts(tracked.info.run_id, "checkpoint")}
    assert files == {"checkpoint/checkpoint", "checkpoint/config.json"}


def test_ctrl_c_ends_it_and_one_worker_goes_on(place: Place) -> None:
    process = place.start(*TRAIN, "--epochs", "60", FMNIST_TRACKING="no")
    place.wait_for_epoch(2, process)
    begun = below(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert re.search(r"fmnist: run .*: interrupted, \d+ of 60 epochs are saved; go on with: fmnist train --resume", err)
    assert len(begun) > 2
    check_gone(begun)
    assert read_checkpoint(place.run.checkpoint).epoch < 60
    place.do("train", "--resume", "latest", FMNIST_TRACKING="no")
    records = read_checkpoint(place.run.checkpoint).records
    assert [record["epoch"] for record in records] == list(range(1, 61))


def test_nothing_is_left_of_a_driver_that_is_killed(place: Place) -> None:
    process = place.start(*TRAIN, "--epochs", "500", FMNIST_TRACKING="no")
    place.wait_for_epoch(1, process)
    begun = below(process)
    folder = next(Path(one.environ()[OWNER]) for one in begun if OWNER in one.environ())
    assert folder.is_dir()
    process.kill()
    process.communicate()
    check_gone(begun)
    assert not folder.exists()
