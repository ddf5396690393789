"""What can be seen of a training by several workers without starting Ray; the rest is in tests/platform."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fmnist import TrainConfig, train
from fmnist.cluster import training, workers
from fmnist.cluster.connection import Cluster
from fmnist.cluster.coordinator import News
from fmnist.data.dataset import Dataset
from fmnist.errors import Failure, UserError
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


@pytest.mark.parametrize(("device", "placed"), [("cpu", "SPREAD"), ("cuda", "PACK")])
def test_workers_go_to_as_many_machines_as_there_are_but_for_gpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, placed: str
) -> None:
    monkeypatch.delitem(sys.modules, "ray")
    ray, torch_trainer = pytest.importorskip("ray"), pytest.importorskip("ray.train.torch")
    made: list[dict[str, Any]] = []

    class Trainer:
        def __init__(self, work: object, **options: Any) -> None:
            made.append(options)

        def fit(self) -> None: ...

    monkeypatch.setattr(torch_trainer, "TorchTrainer", Trainer)
    monkeypatch.setattr("fmnist.cluster.connection.session_folder", lambda: str(tmp_path))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(current_actor=None))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    workers.run_workers(workers.Plan(CONFIG, 10, device, 2, None, None))
    (options,) = made
    assert options["scaling_config"].placement_strategy == placed
    assert options["torch_config"].timeout_s < 600  # Ray's own half hour is for nobody who waits


def test_a_node_without_bfloat16_is_told_of_before_it_emulates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "has_bf16", lambda device: False)
    config = CONFIG.model_copy(update={"precision": "bf16"})
    plan = workers.Plan(config, 10, "cpu", 2, None, None)
    with pytest.raises(Failure, match=r"node .*: has no bfloat16, which the driver's machine has; use others, go on"):
        workers.check_precision(plan)
    workers.check_precision(dataclasses.replace(plan, asked=True))


def test_a_run_from_before_there_were_workers_had_one(finished: Run, tmp_path: Path) -> None:
    about = json.loads((finished.folder / "config.json").read_text())
    assert about.pop("workers") == 1
    (tmp_path / "config.json").write_text(json.dumps(about))
    assert Run(tmp_path).about.workers == 1
