"""What doctor says of what lies in a workspace."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fmnist.data.sources import find_local
from fmnist.files import write_sealed
from fmnist.ops.holdings import backup, data, left_behind, leftovers, records
from fmnist.run import Run
from fmnist.tracking.shipper import State
from fmnist.tracking.wiring import Destinations
from fmnist.workspace import Workspace

HERE = Path(__file__).parents[1] / "data"


@pytest.fixture
def destinations(tmp_path: Path) -> Destinations:
    return Destinations(f"sqlite:///{tmp_path / 'mlflow.db'}", "e", "m", tmp_path / "artifacts", tmp_path / "logs")


@pytest.fixture
def copied(journalled: Run, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(journalled.folder, tmp_path / "runs" / journalled.id)))


def test_data_that_are_still_to_be_fetched(tmp_path: Path) -> None:
    assert data(tmp_path / "data", tmp_path, may_fetch=True).state == "off"
    finding = data(tmp_path / "data", tmp_path, may_fetch=False)
    assert finding.state == "bad" and "CSV" in finding.remedy
    assert list(tmp_path.iterdir()) == []


def test_data_of_ones_own_are_read_and_nothing_is_written(tmp_path: Path) -> None:
    finding = data(HERE, tmp_path, may_fetch=False)
    assert finding.state == "ok" and finding.found.endswith("400 images to train with, 100 to test")
    assert list(tmp_path.iterdir()) == []


def test_data_that_are_not_complete_are_bad(tmp_path: Path) -> None:
    files = find_local(HERE)
    assert files is not None
    shutil.copy(files.files[0], tmp_path)
    finding = data(tmp_path, tmp_path / "var", may_fetch=True)
    assert finding.state == "bad" and "but not" in finding.found and finding.remedy == "add what is missing"


def test_a_damaged_cache_is_a_warning_and_stays_as_it_is(workspace: Workspace) -> None:
    workspace.load_data()
    home = workspace.settings.home
    assert data(HERE, home, may_fetch=False).state == "ok"
    (array,) = home.glob("data/*/train_images.npy")
    array.write_bytes(array.read_bytes()[:-1] + b"?")
    damaged = array.read_bytes()
    assert data(HERE, home, may_fetch=False).state == "warning"
    assert array.read_bytes() == damaged


def test_records_that_were_not_sent_are_a_warning(tmp_path: Path, destinations: Destinations, copied: Run) -> None:
    finding = records(tmp_path, destinations, tracked=True)
    assert finding.state == "warning" and "of 1 run" in finding.found and "fmnist sync" in finding.remedy
    assert records(tmp_path, destinations, tracked=False).state == "off"
    with copied.lock():
        assert left_behind(tmp_path, destinations) == []  # its training sees to it
    for lane in destinations.sinks(copied):
        State(copied).note(lane, 5, None, ended=True)
    assert records(tmp_path, destinations, tracked=True).state == "warning"  # for neither is there
    (destinations.logs / copied.id).mkdir(parents=True)
    (destinations.logs / copied.id / "events.1").touch()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE runs AS SELECT 'x' AS run_uuid, 'active' AS lifecycle_stage")
        database.execute("CREATE TABLE tags AS SELECT 'x' AS run_uuid, 'fmnist.run_id' AS key, ? AS value", [copied.id])
    finding = records(tmp_path, destinations, tracked=True)
    assert (finding.state, finding.found) == ("ok", "MLflow and TensorBoard have all of 1 run")


def test_the_newest_backup_is_told(tmp_path: Path, copied: Run) -> None:
    assert backup(tmp_path / "empty", "fmnist backup").found == "no runs yet"
    assert backup(tmp_path, "make backup")[1:] == ("off", f"no set in {tmp_path / 'backups'}", "make backup")
    for name, made in (("a", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)), ("b", datetime.now(UTC))):
        (tmp_path / "backups" / name).mkdir(parents=True)
        write_sealed(tmp_path / "backups" / name / "manifest.json", json.dumps({"made": made.isoformat()}).encode())
        finding = backup(tmp_path, "fmnist backup")
        if name == "a":
            told = "the newest set is of 2026-01-02 03:04 UTC, 1 run newer"
            assert finding[1:] == ("off", told, "fmnist backup")
    assert finding.state == "ok" and finding.found.endswith(", 0 runs newer")


def test_a_damaged_journal_is_bad(tmp_path: Path, destinations: Destinations, copied: Run) -> None:
    copied.journal.write_bytes(b"x" + copied.journal.read_bytes())
    finding = records(tmp_path, destinations, tracked=True)
    assert finding.state == "bad" and "line 1" in finding.found and "restore it" in finding.remedy


def test_folders_of_killed_processes_are_told(tmp_path: Path) -> None:
    assert leftovers(tmp_path).state == "ok"
    for name in (".scratch-old", "data/.scratch-old", "data/.scratch-new"):
        (tmp_path / name).mkdir(parents=True)
        if name.endswith("old"):
            os.utime(tmp_path / name, (0, 0))
    finding = leftovers(tmp_path)
    assert finding.state == "warning" and finding.found.endswith("killed: 2")
