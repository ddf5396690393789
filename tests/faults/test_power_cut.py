"""The power goes at a random line of what writes checkpoint and journal: the last completed epoch is there.

What the disk then holds is rebuilt from what was synced. A file has what it had at its last fsync, and of what was
written since nothing or a part; a name (made, renamed, removed) counts if its folder was synced since, and else may
count or not.
"""

import os
import random
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from fmnist import training
from fmnist.checkpoint import Checkpoint, read_checkpoint
from fmnist.data.dataset import Dataset
from fmnist.job import Job
from fmnist.progress import Silent
from fmnist.recipe import TrainConfig
from fmnist.run import Run
from fmnist.settings import Settings
from fmnist.tracking.journal import Journal
from fmnist.tracking.tracker import JournalTracker
from fmnist.workspace import Workspace

from ..helpers import DATA, NoProcess
from .conftest import EPOCHS, weights_of

CONFIG = TrainConfig(epochs=EPOCHS, batch_size=64)
NAMES = ("files", "run", "checkpoint", "training", "tracking/journal", "tracking/tracker")
WRITERS = tuple(f"fmnist/{name}.py" for name in NAMES)
"""Modules in whose lines the power may go."""


class PowerCut(BaseException): ...


class ExportBegins(Exception): ...


class UntilExport(Silent):
    """Ends a training after its last epoch: what comes then is of no interest here."""

    def phase(self, name: str, left: float | None = None) -> None:
        raise ExportBegins


class Disk:
    """What of a folder would outlast a power cut now."""

    def __init__(self, root: Path) -> None:
        self.root, self._held = root, list[int]()
        self.content: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {root.stat().st_ino: {}}
        self._fsync = os.fsync

    def fsync(self, descriptor: int) -> None:
        """Stands for os.fsync."""
        self._fsync(descriptor)
        found = os.fstat(descriptor)
        paths = (path for path in (self.root, *self.root.rglob("*")) if path.stat().st_ino == found.st_ino)
        if not (path := next(paths, None)):
            return  # a file elsewhere
        self._held.append(os.dup(descriptor))  # or its number might become another file's
        if stat.S_ISDIR(found.st_mode):
            self.names[found.st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self.content[found.st_ino] = path.read_bytes()

    def rebuild(self, place: Path, chance: random.Random) -> None:
        """Make in `place` what is there when the power is back."""
        now = {path.stat().st_ino: path for path in self.root.rglob("*")}
        listings = {self.root.stat().st_ino: self.root} | {n: path for n, path in now.items() if path.is_dir()}
        current = {n: {entry.name: entry.inode() for entry in os.scandir(path)} for n, path in listings.items()}

        def fill(number: int, target: Path) -> None:
            synced = self.names.get(number, {})
            for name, inner in (current[number] if chance.random() < 0.5 else synced).items():
                if inner in current:
                    (target / name).mkdir()
                    fill(inner, target / name)
                else:
                    synced_content = self.content.get(inner, b"")
                    written = now[inner].read_bytes() if inner in now else synced_content
                    (target / name).write_bytes(_survived(synced_content, written, chance))

        fill(self.root.stat().st_ino, place)

    def close(self) -> None:
        for descriptor in self._held:
            os.close(descriptor)


def _survived(synced: bytes, written: bytes, chance: random.Random) -> bytes:
    """Of a file that was `synced` and then `written`: the former, the latter, or the latter in part."""
    if chance.random() < 0.5 or synced == written:
        return synced
    kept = len(synced) if written.startswith(synced) else 0
    return written[: chance.randint(kept, len(written))]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    (tmp_path / "before").mkdir()
    disk = Disk(tmp_path / "before")
    monkeypatch.setattr(os, "fsync", disk.fsync)
    yield disk
    disk.close()


def job_in(home: Path, dataset: Dataset) -> Job:
    return Workspace(Settings(home=home, data=DATA)).new_run(CONFIG, dataset, "cpu")


def train(job: Job) -> None:
    tracker = JournalTracker(job.run, lambda: NoProcess(), print)  # type: ignore[arg-type, return-value]
    with pytest.raises(ExportBegins):
        job.train(UntilExport(), tracker)


def count_lines(home: Path, dataset: Dataset, at: int = 0, cut: Callable[[], None] = lambda: None) -> int:
    """Train, and count the writers' lines meanwhile; `at` one of them call `cut`, and end."""
    done = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal done
        if not frame.f_code.co_filename.endswith(WRITERS):
            return None
        done += event == "line"
        if done == at and event == "line":
            cut()
            raise PowerCut
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        train(job_in(home, dataset))
    finally:
        sys.settrace(before)
    return done


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> tuple[str, int]:
    """(weights, lines) of a training whose power stays."""
    home = tmp_path_factory.mktemp("whole")
    lines = count_lines(home, dataset)
    (folder,) = (home / "runs").iterdir()
    return weights_of(Run(folder)), lines


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Epochs whose checkpoint was reported written."""
    epochs = list[int]()
    real = training.write_checkpoint

    def noted(path: Path, checkpoint: Checkpoint) -> None:
        real(path, checkpoint)
        epochs.append(checkpoint.epoch)

    monkeypatch.setattr(training, "write_checkpoint", noted)
    return epochs


@pytest.mark.fault("power cut: what was not synced is dropped", 6, 50)
def test_the_last_completed_epoch_is_there(
    tmp_path: Path, disk: Disk, dataset: Dataset, whole: tuple[str, int], completed: list[int], seed: int
) -> None:
    chance, (weights, lines) = random.Random(seed), whole
    after = tmp_path / "after"
    after.mkdir()
    at = chance.randint(1, lines)
    with pytest.raises(PowerCut):
        count_lines(disk.root, dataset, at, lambda: disk.rebuild(after, chance))
    workspace, last = Workspace(Settings(home=after, data=DATA)), max(completed, default=0)
    if not last and not workspace.runs():
        return  # it had not begun
    (run,) = workspace.runs()
    there = read_checkpoint(run.checkpoint).epoch
    assert there in (last, last + 1)
    known = [record["key"] for record in Journal(run.journal).read()]
    train(workspace.resume(run.id, dataset))
    keys = ["start", *(f"epoch/{epoch}" for epoch in range(1, EPOCHS + 1))]
    assert [record["key"] for record in Journal(run.journal).read()] == keys
    assert known == keys[: len(known)]
    assert weights_of(run) == weights
