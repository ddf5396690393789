"""`fmnist sweep` as far as it goes without Ray: what it refuses, in one line and before anything is made."""

from pathlib import Path

import pytest

from fmnist.errors import Failure
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
