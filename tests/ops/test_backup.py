import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmnist.errors import Failure, UserError
from fmnist.files import read_sealed, sha256_of, write_sealed
from fmnist.ops import backup, restore
from fmnist.ops.backup import back_up
from fmnist.ops.sets import MANIFEST, verified
from fmnist.registry import Registry
from fmnist.run import Run, list_runs
from fmnist.tracking.shipper import State

from ..conftest import Command

pytestmark = pytest.mark.filterwarnings("ignore")
NAME = "fashion-mnist"


def uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


def rows(home: Path) -> dict[str, list[Any]]:
    """The whole database, the workspace's own path left out."""
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: sorted(
                repr(row).replace(home.as_uri(), "file://HOME").replace(str(home), "HOME")
                for row in connection.execute(f'SELECT * FROM "{name}"')
            )
            for name in tables
        }


def files(home: Path) -> dict[str, str]:
    """Name -> SHA-256, of all that is kept but the database."""
    kept = [path for part in ("runs", "artifacts", "tensorboard") for path in (home / part).rglob("*")]
    return {str(path.relative_to(home)): sha256_of(path) for path in kept if path.is_file()}


def everything(home: Path) -> dict[str, str]:
    return {str(path.relative_to(home)): sha256_of(path) for path in home.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of it; read it, do not change it."""
    notebooks = tmp_path_factory.mktemp("notebooks")
    (notebooks / "mine.ipynb").write_text("{}")
    return back_up(source, uri(source), notebooks, tmp_path_factory.mktemp("sets"))[0]


def test_a_set_restored_elsewhere_is_the_same_in_everything(made: Path, source: Path, tmp_path: Path) -> None:
    home = tmp_path / "other place"
    before = everything(source)
    manifest, kept = restore.restore(made, home, NAME)
    assert kept is None
    assert rows(home) == rows(source)
    there = files(home)
    changed = "runs/20260101-000000-00001/shipping.json"  # names its database by path
    assert there.keys() == files(source).keys()
    assert {name for name in there if there[name] != files(source)[name]} == {changed}
    assert manifest.counts["model_versions"] == 3
    assert sorted(path.name for path in home.iterdir()) == ["artifacts", "mlflow.db", "runs", "tensorboard"]
    assert everything(source) == before


def test_it_needs_nothing_of_the_place_it_came_from(source: Path, tmp_path: Path) -> None:
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    made, _ = back_up(source, uri(source), None, tmp_path / "sets")
    restore.restore(made, first, NAME)
    again, _ = back_up(first, uri(first), None, tmp_path / "more sets")
    shutil.rmtree(made)
    first.rename(second)  # gone from where it was
    restore.restore(again, third, NAME)
    shutil.rmtree(second)
    registry = Registry(uri(third), NAME)
    for version in registry.versions():
        assert sha256_of(registry.fetch(version, tmp_path / "cache")) == version.sha256
    assert registry.find("champion").number == 1


def test_what_was_not_sent_is_still_to_be_sent(made: Path, tmp_path: Path) -> None:
    restore.restore(made, tmp_path / "home", NAME)
    run = list_runs(tmp_path / "home" / "runs")[0]
    lane = f"mlflow {uri(tmp_path / 'home')}"
    assert State(run).sent(lane) == 2
    assert not State(run).has_all(lane)


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


@pytest.mark.parametrize(
    "name", ["mlflow.db", "runs.tar", "artifacts.tar", "tensorboard.tar", "notebooks.tar", MANIFEST]
)
def test_a_changed_byte_is_found_and_nothing_is_touched(made: Path, source: Path, tmp_path: Path, name: str) -> None:
    damaged, home = tmp_path / "set", tmp_path / "home"
    shutil.copytree(made, damaged)
    content = bytearray((damaged / name).read_bytes())
    content[np.random.default_rng(0).integers(len(content))] ^= 1
    (damaged / name).write_bytes(content)
    shutil.copytree(source, home)
    before = everything(home)
    with pytest.raises(Failure, match=r"damaged"):
        restore.restore(damaged, home, NAME)
    assert everything(home) == before


def test_a_set_without_one_of_its_files_or_its_manifest_is_none(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "set")
    (tmp_path / "set" / "runs.tar").unlink()
    with pytest.raises(Failure, match=r"runs.tar: is missing from its backup set"):
        verified(tmp_path / "set")
    (tmp_path / "set" / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"is no backup set"):
        verified(tmp_path / "set")


def test_a_database_with_less_than_the_manifest_says_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "set")
    values = json.loads(read_sealed(made / MANIFEST))
    values["counts"]["metrics"] += 1
    write_sealed(tmp_path / "set" / MANIFEST, json.dumps(values).encode())
    with pytest.raises(Failure, match=r"its manifest says"):
        restore.restore(tmp_path / "set", tmp_path / "home", NAME)
    assert list((tmp_path / "home").iterdir()) == []


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


@pytest.mark.parametrize("count", range(1, 8))
def test_a_restore_that_is_killed_is_finished_by_the_next(
    made: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """After each of the renames of which it consists."""
    home = tmp_path / "home"
    shutil.copytree(source, home)
    (home / "runs" / "20260101-000000-00001" / "config.json").unlink()
    was, replace, left = everything(home), Path.replace, [count]

    def killed(path: Path, target: Path) -> Path:
        if "restoring" in str(path.parent) or path.parent == home:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        restore.restore(made, home, NAME)
    if not restore.finish(home):  # before the first folder changed places
        assert everything(home) == was
        return
    (kept,) = home.glob("before-*")
    assert everything(kept) == was
    assert files(home).keys() == files(source).keys()
    assert rows(home).keys() == rows(source).keys()
    assert not (home / "restoring").exists()


def test_killed_anywhere_it_is_finished_also_where_there_was_less_before(
    made: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = tmp_path / "staged"
    shutil.copytree(source / "runs", staged / "runs")  # a workspace that tracked nothing
    was, replace, left = everything(staged), Path.replace, [0]
    with monkeypatch.context() as patch:
        patch.setattr(restore, "finish", lambda home: True)
        restore.restore(made, staged, NAME)

    def killed(path: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    for count in range(8):
        home = Path(shutil.copytree(staged, tmp_path / str(count)))
        left[0] = count
        with contextlib.suppress(KeyboardInterrupt):
            restore.finish(home)
        assert (home / "restoring").exists() is (count < 6)  # runs gave way, four parts took their places, that is all
        left[0] = 9
        assert restore.finish(home) is (count < 6)
        (kept,) = home.glob("before-*")
        assert everything(kept) == was
        assert {path.name for path in home.iterdir()} == {kept.name, "artifacts", "mlflow.db", "runs", "tensorboard"}


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


def test_what_is_in_use_is_not_replaced(made: Path, source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(source, home)
    run = list_runs(home / "runs")[0]
    with run.lock(), pytest.raises(Failure, match=f"run {run.id}: is being trained; wait for it, or stop it"):
        restore.restore(made, home, NAME)
    script = "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(home / "mlflow.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(Failure, match=rf"is open in .* \(process {process.pid}\); stop fmnist up first"):
            restore.restore(made, home, NAME)
        process.send_signal(signal.SIGKILL)


def test_a_database_elsewhere_is_not_restored_to(
    tmp_path: Path, home: Path, fmnist: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    code, _, err = fmnist("restore", tmp_path)
    assert code == 2
    assert f"elsewhere.db: is not where a set's database is put; unset it: {home / 'mlflow.db'} is" in err


def test_a_server_keeps_its_own(tmp_path: Path, fmnist: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    told = "fmnist: MLFLOW_TRACKING_URI http://localhost:1: is a server, which has its own"
    assert fmnist("backup")[2].startswith(told)
    assert fmnist("restore", tmp_path)[2].startswith(told)
