import json
import shutil
from pathlib import Path

import pytest

from fmnist.errors import Failure, UserError
from fmnist.ops import backup, restore
from fmnist.ops.backup import back_up
from fmnist.ops.sets import MANIFEST, verified
from fmnist.run import Run, list_runs
from fmnist.tracking.shipper import State

from ..conftest import Command
from .places import NAME, files, uri

pytestmark = pytest.mark.filterwarnings("ignore")


def test_how_far_records_were_sent_is_noted_before_the_database_is_read(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a record that is sent in between would count as sent, and be in no database."""
    home = tmp_path / "home"
    restore.restore(made, home, NAME)
    run = list_runs(home / "runs")[0]
    copy = backup.copy_database

    def meanwhile(database: Path, target: Path) -> None:
        copy(database, target)
        run.shipping.write_text(json.dumps({"lane": {"sent": 5, "error": None, "ended": True}}))

    begun = Run(home / "runs" / "20260101-000000-00009")

    def begin(database: Path, target: Path) -> None:
        meanwhile(database, target)
        shutil.copytree(run.folder, begun.folder)

    monkeypatch.setattr(backup, "copy_database", begin)
    again, _ = back_up(home, uri(home), None, tmp_path / "sets")
    restore.restore(again, tmp_path / "other", NAME)
    for one in (run, begun):
        assert not State(Run(tmp_path / "other" / "runs" / one.id)).has_all("lane")


def test_a_set_without_one_of_its_files_or_its_manifest_is_none(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "set")
    (tmp_path / "set" / "runs.tar").unlink()
    with pytest.raises(Failure, match=r"runs.tar: is missing from its backup set"):
        verified(tmp_path / "set")
    (tmp_path / "set" / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"is no backup set"):
        verified(tmp_path / "set")


def test_a_damaged_database_is_told_and_makes_no_set(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(source, home)
    content = bytearray((home / "mlflow.db").read_bytes())
    content[8192:12288] = b"\xff" * 4096
    (home / "mlflow.db").write_bytes(content)
    with pytest.raises(Failure, match=r"damaged|takes no backup"):
        back_up(home, uri(home), None, tmp_path / "sets")
    assert list((tmp_path / "sets").iterdir()) == []


def test_models_that_lie_outside_the_workspace_are_told(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(source, home)  # its database still names the first place
    with pytest.raises(Failure, match=r"version 1: its files lie in .*source.*, outside .*home; move the workspace"):
        back_up(home, uri(home), None, tmp_path / "sets")
    assert list((tmp_path / "sets").iterdir()) == []


def test_a_disk_that_cannot_hold_it_is_told_first(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    with pytest.raises(Failure, match=r"has 0 MB free, the set needs \d+; make room or choose --to"):
        back_up(source, uri(source), None, tmp_path / "sets")
    assert list((tmp_path / "sets").iterdir()) == []


def test_the_verbs(fmnist: Command, home: Path, source: Path, made: Path) -> None:
    assert fmnist("backup", "--verify", made)[0] == 0
    assert fmnist("restore") == (2, "", f"fmnist: restore: takes a set; there are none in {home / 'backups'} yet\n")
    code, out, _ = fmnist("restore", made)
    assert code == 0
    assert "model versions" in out
    assert "champion" in fmnist("models")[1]
    code, _, err = fmnist("restore", made)
    assert (code, err) == (2, "fmnist: nothing was restored: that takes a yes at the terminal, or --yes\n")
    assert fmnist("restore", made, "--yes")[0] == 0
    (kept,) = home.glob("before-*")
    assert files(kept) == files(home)
    code, out, _ = fmnist("backup")
    assert code == 0
    (again,) = (home / "backups").iterdir()
    assert f"put it back with: fmnist restore {again}" in out
    assert verified(again).counts == verified(made).counts
    (home / "restoring").mkdir()
    assert "a restore was cut off here; finish it: fmnist restore" in fmnist("runs")[2]


def test_a_server_keeps_its_own(tmp_path: Path, fmnist: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    told = "fmnist: MLFLOW_TRACKING_URI http://localhost:1: is a server, which has its own"
    assert fmnist("backup")[2].startswith(told)
    assert fmnist("restore", tmp_path)[2].startswith(told)


def test_a_run_that_was_moved_away_and_linked_is_told(made: Path, tmp_path: Path) -> None:
    """A set would hold the link alone."""
    home = tmp_path / "home"
    restore.restore(made, home, NAME)
    run = list_runs(home / "runs")[0].folder
    run.rename(tmp_path / run.name)
    for target in (tmp_path / run.name, Path("..", "..", run.name)):
        run.symlink_to(target)
        with pytest.raises(Failure, match=rf"{run.name}: is a link out of .*runs, to what no set would hold; put"):
            back_up(home, uri(home), None, tmp_path / "sets")
        assert list((tmp_path / "sets").iterdir()) == []
        run.unlink()
    (home / "runs" / "latest").symlink_to(list_runs(home / "runs")[0].id)  # one that leads to what is there
    back_up(home, uri(home), None, tmp_path / "sets")
