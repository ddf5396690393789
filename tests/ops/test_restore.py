import contextlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fmnist.errors import Failure
from fmnist.files import held_lock, read_sealed, sha256_of, write_sealed
from fmnist.ops import restore
from fmnist.ops.backup import back_up, copy_database
from fmnist.ops.sets import MANIFEST
from fmnist.registry import Registry
from fmnist.run import list_runs
from fmnist.tracking.shipper import State

from ..conftest import Command
from .places import NAME, everything, files, rows, uri

pytestmark = pytest.mark.filterwarnings("ignore")


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


def test_a_database_with_less_than_the_manifest_says_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "set")
    values = json.loads(read_sealed(made / MANIFEST))
    values["counts"]["metrics"] += 1
    write_sealed(tmp_path / "set" / MANIFEST, json.dumps(values).encode())
    with pytest.raises(Failure, match=r"its manifest says"):
        restore.restore(tmp_path / "set", tmp_path / "home", NAME)
    assert list((tmp_path / "home").iterdir()) == []


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


def test_what_sqlite_has_left_of_a_kill_goes_with_its_database(made: Path, source: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(source, tmp_path / "home"))
    journal = home / "mlflow.db-journal"
    script = """if True:
        import os, sqlite3, sys
        database = sqlite3.connect(sys.argv[1], isolation_level=None)
        database.execute("PRAGMA cache_size = 1")
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE metrics SET value = -1")
        database.execute("CREATE TABLE half AS SELECT randomblob(1000) FROM metrics, runs")
        os.kill(os.getpid(), 9)"""
    subprocess.run([sys.executable, "-c", script, str(home / "mlflow.db")], check=False)
    assert journal.exists()
    aside = Path(shutil.copytree(home, tmp_path / "aside"))
    (copy := tmp_path / "copy").mkdir()
    copy_database(aside / "mlflow.db", copy / "mlflow.db")  # SQLite brings it in order first
    assert rows(copy)["metrics"] == rows(source)["metrics"] and "half" not in rows(copy)
    _, kept = restore.restore(made, home, NAME)
    assert kept and (kept / "mlflow.db-journal").exists() and not journal.exists()
    assert rows(home)["metrics"] == rows(source)["metrics"] and "half" not in rows(home)


def test_what_is_in_use_is_not_replaced(made: Path, source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(source, home)
    run = list_runs(home / "runs")[0]
    with run.lock(), pytest.raises(Failure, match=f"run {run.id}: is being trained or sent; wait for it"):
        restore.restore(made, home, NAME)
    with held_lock(run.folder / "shipping.lock", "x"), pytest.raises(Failure, match="is being trained or sent; wait"):
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
