"""What can be seen of a training by several workers without starting Ray; the rest is in tests/platform."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fmnist import TrainConfig, train
from fmnist.cluster import training
from fmnist.cluster.connection import Cluster
from fmnist.cluster.coordinator import News
from fmnist.data.dataset import Dataset
from fmnist.errors import UserError
from fmnist.progress import Silent
from fmnist.run import Run
from fmnist.tracking.records import start_record
from fmnist.workspace import Workspace

CONFIG = TrainConfig(epochs=1, batch_size=64, precision="fp32")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """To import it is an error."""
    monkeypatch.setitem(sys.modules, "ray", None)


def test_one_worker_needs_no_ray(workspace: Workspace, dataset: Dataset) -> None:
    run = train(CONFIG, dataset, workers=1, watcher=Silent())
    assert (run.about.workers, start_record(run)["facts"]["workers"]) == (1, "1")
    assert run.result is not None


def test_a_run_that_is_over_needs_none_either(workspace: Workspace, dataset: Dataset) -> None:
    run = workspace.new_run(CONFIG, dataset, "cpu").train(Silent())
    assert train(resume=run.id, workers=2, watcher=Silent()) == run


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--workers", "0"), "--workers 0: is too small; give at least 1"),
        (("--workers", "-2"), "--workers -2: is too small; give at least 1"),
        (("--workers", "two"), "invalid value for '--workers': Input should be a valid integer"),
        (("--address", "auto"), "--address auto: is for several workers; give --workers N too, or leave it out"),
        (
            ("--workers", "33", "--batch-size", "64"),
            "--workers 33: leaves each less than 2 images of a batch of 64; give at most 32, or a larger --batch-size",
        ),
        (("--workers", "120"), "--workers 120: is more than the "),
        (("--workers", "2", "--address", "here"), "--address here: is no address; give auto, HOST:PORT or ray://"),
    ],
)
def test_what_makes_no_sense_is_told_before_there_is_a_run(
    fmnist: Command, workspace: Workspace, arguments: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmnist.cluster.connection.processors", lambda: 2)
    code, out, err = fmnist("train", *arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    assert not workspace.runs_root.exists()


def test_a_resume_is_asked_by_the_runs_own_batch_size(workspace: Workspace, dataset: Dataset) -> None:
    run = workspace.new_run(CONFIG, dataset, "cpu").run
    with pytest.raises(UserError, match="leaves each less than 2 images of a batch of 64"):
        train(resume=run.id, workers=33)
    assert not run.checkpoint.exists()


def test_workers_that_do_not_come_are_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told, waiting = list[str](), News(0, 0, None, None, "")
    team = training.Team(Cluster(None, 2, 0, "node"), 2, told.append)
    engine = training.ClusterEngine(CONFIG, 10, "cpu", team)
    news = iter([waiting, waiting, waiting._replace(begun=1)])
    monkeypatch.setattr(engine, "_ask", lambda *_: next(news))
    engine._wait(time.perf_counter() - training.LONG)
    assert told == ["no 2 workers yet after 120 s: they need as many free processors, and all TCP ports between them"]


def test_a_run_from_before_there_were_workers_had_one(finished: Run, tmp_path: Path) -> None:
    about = json.loads((finished.folder / "config.json").read_text())
    assert about.pop("workers") == 1
    (tmp_path / "config.json").write_text(json.dumps(about))
    assert Run(tmp_path).about.workers == 1
