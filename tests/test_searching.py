"""`fmnist sweep` as far as it goes without Ray: what it refuses, in one line and before anything is made; promoting."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from fmnist import searching
from fmnist.data.dataset import Dataset
from fmnist.errors import Failure
from fmnist.registry import Registry
from fmnist.run import Run
from fmnist.sweep import Sweep
from fmnist.tracking.journal import Journal
from fmnist.workspace import Workspace

from .conftest import Command
from .sweeps import a_sweep, ended


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--trials", 0], "--trials 0: is too small; give at least 1"),
        (["--epochs", 0], "--epochs 0: is too small; give at least 1"),
        (["--concurrent", 0], "--concurrent 0: is too small; give at least 1"),
        (["--space", "seed=1,2"], "--space seed: would be a search for luck; give --seed"),
        (["--space", "dropout=0..9"], "--space dropout 9: is too large; give at most 2.0"),
        (["--space", "batch_size=64,4096"], "batch_size 4096: is more than the 320 training images; give at most that"),
        (["--space", "model=cnn,nothing"], "nothing"),
        (
            [
                part
                for name in ("learning_rate", "weight_decay", "dropout", "label_smoothing")
                for part in ("--space", f"{name}=0.1")
            ]
            + ["--space", "batch_size=64"],
            "--space: leaves nothing to search; give some field a range",
        ),
        (["--recipe", "x"], "recipe 'x': there is no such recipe; "),
        (["--resume", "nowhere"], "sweep 'nowhere': there is no such sweep in "),
        (["--resume", "latest", "--trials", 3], "--trials: is the sweep's own, and latest has it already"),
        (["--promote"], "--promote: needs the registry, and FMNIST_TRACKING turns tracking off; leave one out"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_made(
    fmnist: Command, home: Path, arguments: list[object], problem: str
) -> None:
    code, out, err = fmnist("sweep", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert problem in err
    assert not (home / "sweeps").exists()


def test_sync_knows_sweeps(fmnist: Command, workspace: Workspace, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, records = a_sweep(workspace.sweeps_root)
    monkeypatch.setattr(Workspace, "sync", lambda self, run, **how: {})
    Journal(sweep.journal).add_missing(records[:1])
    told = f"fmnist: sweep {sweep.id}: all is sent that is here; it is not finished\n"
    assert fmnist("sync", sweep.id) == (0, "", told)
    assert fmnist("sync") == (0, "", told)
    code, _, err = fmnist("sync", "sweep-none")
    assert (code, "there is no such sweep" in err) == (2, True)


def test_a_sweep_that_is_over_but_for_its_end_is_to_be_resumed_first(workspace: Workspace) -> None:
    sweep, records = a_sweep(workspace.sweeps_root)
    Journal(sweep.journal).add_missing(ended(records)[:-1])
    sweep.report.mkdir()
    sweep.best.write_text("{}")
    with pytest.raises(Failure, match=f"fmnist sweep --resume {sweep.id}"):
        workspace.sync(Sweep(sweep.folder))


@pytest.fixture
def best(workspace: Workspace, finished: Run, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The finished run is a sweep's best, beside a champion with these scores. Gives (is promoted, what is told)."""
    sweep, _ = a_sweep(workspace.sweeps_root)
    run = Run(workspace.runs_root / finished.id)
    shutil.copytree(finished.folder, run.folder)
    about = json.loads((run.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps(about | {"tags": {searching.SWEEP_TAG: sweep.id}}))
    made: list[str] = []

    def champion(scores: dict[str, float] | None, run_id: str = "another", digest: str = dataset.digest) -> Any:
        rival = SimpleNamespace(aliases=("champion",), run_id=run_id, scores=scores, number=1)
        versions = [] if scores is None else [rival]
        monkeypatch.setattr(Registry, "versions", lambda self: versions)
        monkeypatch.setattr(Registry, "promote", lambda self, run_id: made.append(run_id) or SimpleNamespace(number=2))
        monkeypatch.setattr(Workspace, "train", lambda self, job, watcher: job.run)
        monkeypatch.setattr(searching, "_digest_of_champion", lambda workspace: digest)
        told = io.StringIO()
        outcome = searching._promote(workspace, sweep, dataset, Console(file=told, width=1000))
        assert outcome["promoted"] is bool(made) and outcome["run_id"] == run.id
        return outcome["promoted"], told.getvalue().splitlines()[-1]

    return champion


@pytest.mark.parametrize("more", [-0.1, 0.0, 0.1])
def test_the_champion_gives_way_only_to_a_better_one(best: Callable[..., Any], finished: Run, more: float) -> None:
    assert finished.result is not None
    known = float(f"{finished.result.val.accuracy + more:.6f}")  # as it is written in MLflow
    promoted, told = best({"val_accuracy": known})
    assert promoted is (more < 0)
    assert told.endswith("version 2 is the champion" if promoted else f"the champion {known:.2%}: it stays")


def test_without_a_champion_or_as_the_champion_it_is_promoted(best: Callable[..., Any], finished: Run) -> None:
    assert best(None)[0]
    assert best({"val_accuracy": 0.99}, run_id=finished.id)[0]


def test_a_champion_that_cannot_be_compared_stays(best: Callable[..., Any]) -> None:
    promoted, told = best({"val_accuracy": 0.01}, digest="other")
    assert not promoted and "the champion is of other data, or its file is gone: it stays" in told
    promoted, told = best({})
    assert not promoted and "the champion tells no accuracy there: it stays" in told
