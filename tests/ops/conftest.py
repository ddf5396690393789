import json
import shutil
from pathlib import Path

import pytest

from fmnist.ops import restore
from fmnist.ops.backup import back_up
from fmnist.run import list_runs

from .places import NAME, Place, rename_places, uri


@pytest.fixture
def place(three_versions: Path, tmp_path: Path) -> Place:
    """A copy whose database names its own files."""
    home = Path(shutil.copytree(three_versions, tmp_path / "var"))
    rename_places(home / "mlflow.db", three_versions, home)
    return Place(home)


@pytest.fixture(scope="session")
def source(three_versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with three tracked runs; the last records of one are not sent yet."""
    home = tmp_path_factory.mktemp("source") / "home"
    restore.restore(back_up(three_versions, uri(three_versions), None, home.parent)[0], home, NAME)
    folder = home / "tensorboard" / "20260101-000000-00001"
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1").write_bytes(b"events")
    run = list_runs(home / "runs")[0]
    lane = f"mlflow {uri(home)}"
    run.shipping.write_text(json.dumps({lane: {"sent": 2, "error": None, "ended": False}}))
    return home


@pytest.fixture(scope="session")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of it; read it, do not change it."""
    notebooks = tmp_path_factory.mktemp("notebooks")
    (notebooks / "mine.ipynb").write_text("{}")
    return back_up(source, uri(source), notebooks, tmp_path_factory.mktemp("sets"))[0]
