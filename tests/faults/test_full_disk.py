"""A disk that fills: what fails says so in a sentence, what was there stays usable, and with room again all goes on."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fmnist.checkpoint import read_checkpoint
from fmnist.data.dataset import Dataset
from fmnist.errors import Failure
from fmnist.progress import Silent
from fmnist.recipe import TrainConfig
from fmnist.run import Run
from fmnist.settings import Settings
from fmnist.tracking.journal import Journal, Record
from fmnist.tracking.tracker import JournalTracker
from fmnist.workspace import Workspace

from ..helpers import DATA, NoProcess
from .conftest import EPOCHS, Place, Warm, weights_of

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future

CONFIG = TrainConfig(epochs=EPOCHS, batch_size=64)
NO_ROOM = "No space left on device"
PAGE = os.sysconf("SC_PAGE_SIZE")


class SmallDisk:
    """A file system of its own, of 32 MB."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._filler = folder, folder / "filler"

    def fill(self, leave: int) -> None:
        """Leave so many bytes, or a little less."""
        with self._filler.open("ab", buffering=0) as file:
            free = shutil.disk_usage(self.folder).free - leave
            while free > 0:
                free -= file.write(b"\0" * min(free, 1 << 20))

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    root = [] if os.getuid() == 0 else ["sudo", "--non-interactive"]
    mount = [*root, "mount", "-t", "tmpfs", "-o", f"size=32m,mode=700,uid={os.getuid()}", "tmpfs", str(folder)]
    try:
        told = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here, so no small disk")
    if told.returncode:
        pytest.skip(f"no small disk can be mounted here: {told.stderr.strip()}")
    yield SmallDisk(folder)
    subprocess.run([*root, "umount", "--lazy", str(folder)], check=True)  # MLflow may have its database open still


class Filling(JournalTracker):
    """Fills the disk before it takes an epoch's record."""

    def __init__(self, run: Run, epoch: int, fill: Callable[[], None]) -> None:
        super().__init__(run, lambda: NoProcess(), print)  # type: ignore[arg-type, return-value]
        self._epoch, self._fill = epoch, fill

    def commit(self, records: Sequence[Record]) -> None:
        if len(records) == self._epoch:
            self._fill()
        super().commit(records)


class FillingWatcher(Silent):
    """Fills the disk in an epoch."""

    def __init__(self, epoch: int, fill: Callable[[], None]) -> None:
        self._epoch, self._fill = epoch, fill

    def step(self, epoch: int, images: int) -> None:
        if epoch == self._epoch:
            self._fill()


def own_workspace(home: Path, uri: str | None = None) -> Workspace:
    values = {"home": home, "data": DATA, "MLFLOW_TRACKING_URI": uri}
    return Workspace(Settings(**values))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Run:
    """A training in this process with room enough, sent nowhere."""
    job = own_workspace(tmp_path_factory.mktemp("here")).new_run(CONFIG, dataset, "cpu")
    return job.train(Silent(), JournalTracker(job.run, lambda: NoProcess(), print))  # type: ignore[arg-type, return-value]


def check_goes_on(workspace: Workspace, dataset: Dataset, here: Run, warm: Warm, uri: str) -> None:
    (run,) = workspace.runs()
    tracker = JournalTracker(run, lambda: NoProcess(), print)  # type: ignore[arg-type, return-value]
    workspace.resume(run.id, dataset).train(Silent(), tracker)
    assert weights_of(run) == weights_of(here)
    assert workspace.sync(run) == {}
    Place(workspace.settings.home, warm, MLFLOW_TRACKING_URI=uri).check_tracked_once()


@pytest.mark.fault("disk full at a checkpoint", 1, 5)
def test_at_a_checkpoint(disk: SmallDisk, dataset: Dataset, here: Run, warm: Warm, database: Path, seed: int) -> None:
    chance, workspace = random.Random(seed), own_workspace(disk.folder)
    shutil.copy(database, disk.folder)
    epoch, size = chance.randint(1, EPOCHS), here.checkpoint.stat().st_size
    job = workspace.new_run(CONFIG, dataset, "cpu")
    watcher = FillingWatcher(epoch, lambda: disk.fill(chance.randint(0, size // 2)))
    with pytest.raises(Failure) as told:
        job.train(watcher, Filling(job.run, 0, lambda: None))
    assert str(told.value) == (
        f"run {job.run.id}: {job.run.checkpoint}: cannot be written ({NO_ROOM}); make room or mend the folder, "
        f"what it held stands; go on with: fmnist train --resume {job.run.id}"
    )
    assert read_checkpoint(job.run.checkpoint).epoch == epoch - 1
    assert len(Journal(job.run.journal).read()) == epoch
    disk.free()
    check_goes_on(workspace, dataset, here, warm, f"sqlite:///{disk.folder / 'mlflow.db'}")


def missing_to_a_page(run: Run, epoch: int) -> int:
    """By how many bytes to lengthen the journal's first record, so that an epoch's lies across the end of a page.

    A full disk has room up to the end of a page that is there.
    """
    lengths = [len(line) for line in run.journal.read_bytes().splitlines(keepends=True)]
    return -(sum(lengths[:epoch]) + lengths[epoch] // 2) % PAGE


@pytest.mark.fault("disk full at the journal", 1, 5)
def test_at_the_journal(disk: SmallDisk, dataset: Dataset, here: Run, warm: Warm, database: Path, seed: int) -> None:
    chance, workspace = random.Random(seed), own_workspace(disk.folder)
    shutil.copy(database, disk.folder)
    epoch = chance.randint(1, EPOCHS)
    job = workspace.new_run(CONFIG, dataset, "cpu", note="-" * missing_to_a_page(here, epoch))
    with pytest.raises(Failure) as told:
        job.train(Silent(), Filling(job.run, epoch, lambda: disk.fill(0)))
    assert str(told.value) == (
        f"run {job.run.id}: {job.run.journal}: cannot be written ({NO_ROOM}); make room, nothing is lost; "
        f"go on with: fmnist train --resume {job.run.id}"
    )
    assert read_checkpoint(job.run.checkpoint).epoch == epoch
    assert len(Journal(job.run.journal).read()) == epoch
    disk.free()
    check_goes_on(workspace, dataset, here, warm, f"sqlite:///{disk.folder / 'mlflow.db'}")


def sent_nowhere(here: Run, home: Path) -> Run:
    return Run(Path(shutil.copytree(here.folder, home / "runs" / here.id)))


@pytest.mark.fault("disk full at an artifact", 1, 5)
def test_at_an_artifact(
    disk: SmallDisk, tmp_path: Path, here: Run, warm: Warm, database: Path, dataset: Dataset, seed: int
) -> None:
    chance, home = random.Random(seed), tmp_path / "home"
    run, workspace = sent_nowhere(here, home), own_workspace(home)
    shutil.copy(database, home)
    (home / "artifacts").symlink_to(disk.folder)
    disk.fill(chance.randint(0, here.model.stat().st_size // 2))
    ((lane, error),) = workspace.sync(run).items()
    assert lane.startswith("mlflow ") and error.endswith(f" is full ({NO_ROOM}); make room there, nothing is lost")
    disk.free()
    check_goes_on(workspace, dataset, here, warm, f"sqlite:///{home / 'mlflow.db'}")


@pytest.mark.fault("disk full at MLflow's database", 1, 5)
def test_at_the_database(
    disk: SmallDisk, tmp_path: Path, here: Run, warm: Warm, database: Path, dataset: Dataset, seed: int
) -> None:
    chance, uri = random.Random(seed), f"sqlite:///{disk.folder / 'mlflow.db'}"
    run, workspace = sent_nowhere(here, tmp_path / "home"), own_workspace(tmp_path / "home", uri)
    if chance.random() < 0.7:  # else there is none yet
        shutil.copy(database, disk.folder)
    disk.fill(chance.randint(0, 20_000))
    ((lane, error),) = workspace.sync(run).items()
    assert lane == f"mlflow {uri}"
    whose = {"database or disk is full": "the disk of its database", NO_ROOM: "its disk"}  # SQLite's word, MLflow's own
    assert error in {f"{place} is full ({word}); make room there, nothing is lost" for word, place in whose.items()}
    disk.free()
    check_goes_on(workspace, dataset, here, warm, uri)
