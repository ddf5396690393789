from pathlib import Path

import pytest

from fmnist.run import Run
from fmnist.tracking.journal import Journal, Record


@pytest.fixture
def records(journalled: Run) -> list[Record]:
    return Journal(journalled.journal).read()


@pytest.fixture
def own_copy(journalled: Run, tmp_path: Path) -> Run:
    """The same run in a folder that may be changed."""
    import shutil

    return Run(Path(shutil.copytree(journalled.folder, tmp_path / "runs" / journalled.id)))
