import shutil
from pathlib import Path

import pytest

from .places import Place, rename_places


@pytest.fixture
def place(three_versions: Path, tmp_path: Path) -> Place:
    """A copy whose database names its own files."""
    home = Path(shutil.copytree(three_versions, tmp_path / "var"))
    rename_places(home / "mlflow.db", three_versions, home)
    return Place(home)
