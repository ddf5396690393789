from pathlib import Path

import pytest

from fmnist.data.dataset import Dataset
from fmnist.progress import Silent
from fmnist.recipe import TrainConfig
from fmnist.run import Run
from fmnist.settings import Settings
from fmnist.tracking.journal import Journal, Record
from fmnist.tracking.tracker import JournalTracker
from fmnist.workspace import Workspace


class NoProcess:
    """Stands for a shipper that has nothing to do."""

    returncode = 0

    def poll(self) -> int:
        return 0


@pytest.fixture(scope="session")
def journalled(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Run:
    """A finished run of three epochs with its journal, sent nowhere; read it, do not change it."""
    workspace = Workspace(Settings(home=tmp_path_factory.mktemp("journalled")))
    config = TrainConfig(epochs=3, batch_size=64, precision="fp32")
    job = workspace.new_run(config, dataset, "cpu", name="a name", note="a note", tags={"team": "red"})
    tracker = JournalTracker(job.run, lambda: NoProcess(), print)  # type: ignore[arg-type, return-value]
    return job.train(Silent(), tracker)


@pytest.fixture
def records(journalled: Run) -> list[Record]:
    return Journal(journalled.journal).read()


@pytest.fixture
def own_copy(journalled: Run, tmp_path: Path) -> Run:
    """The same run in a folder that may be changed."""
    import shutil

    return Run(Path(shutil.copytree(journalled.folder, tmp_path / "runs" / journalled.id)))
