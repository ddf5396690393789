"""`fmnist upgrade`: a database of an older schema, moved on, or left as it was."""

import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fmnist.errors import Failure, UserError
from fmnist.ops import upgrade as module
from fmnist.ops.backup import back_up, counts_of
from fmnist.ops.restore import migrate, restore
from fmnist.ops.sets import verified
from fmnist.ops.stores import schema
from fmnist.ops.upgrade import upgrade
from fmnist.registry import Registry

from .places import NAME, Place, rename_places, uri

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future
STEP_BACK = """
import sys
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
command.downgrade(_get_alembic_config(sys.argv[1]), "-1")
"""


@pytest.fixture(scope="module")
def old(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose database lacks MLflow's last step."""
    home = Path(shutil.copytree(source, tmp_path_factory.mktemp("old") / "home"))
    rename_places(home / "mlflow.db", source, home)
    subprocess.run([sys.executable, "-c", STEP_BACK, uri(home)], check=True, capture_output=True)
    return home


@pytest.fixture
def home(old: Path, tmp_path: Path) -> Path:
    home = Path(shutil.copytree(old, tmp_path / "home"))
    rename_places(home / "mlflow.db", old, home)
    return home


def test_it_is_moved_on_with_all_that_was_there_and_a_set_is_kept(home: Path) -> None:
    current, (newest, *_) = schema(uri(home))
    before = counts_of(home / "mlflow.db")
    was, now, made = upgrade(home, uri(home), NAME, None, home / "backups")
    assert (was, now) == (current, newest) and was != now
    assert schema(uri(home))[0] == newest and counts_of(home / "mlflow.db") == before
    assert len(Registry(uri(home), NAME).versions()) == 3
    assert made and verified(made).counts["runs"] == 3 and schema(f"sqlite:///{made / 'mlflow.db'}")[0] == current
    restore(made, home, NAME)  # by the newer MLflow: it is moved on again
    assert schema(uri(home))[0] == newest and counts_of(home / "mlflow.db") == before
    assert upgrade(home, uri(home), NAME, None, home / "backups") == (newest, newest, None)  # once is enough
    assert len(list((home / "backups").iterdir())) == 1


def test_a_step_that_fails_leaves_it_as_it_was(home: Path) -> None:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        connection.execute("CREATE TABLE scheduler_leases (in_the_way int)")
    before = (home / "mlflow.db").read_bytes()
    with pytest.raises(Failure, match=r"mlflow db upgrade: fails \(.*scheduler_leases.*\)"):
        upgrade(home, uri(home), NAME, None, home / "backups")
    assert (home / "mlflow.db").read_bytes() == before
    assert not [path for path in home.iterdir() if path.name.startswith(".")]


def test_what_was_written_meanwhile_is_not_lost(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(uri: str) -> None:
        with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
            connection.execute("UPDATE runs SET name = 'mine'")
        migrate(uri)

    monkeypatch.setattr(module, "migrate", slow)
    with pytest.raises(Failure, match="was written to meanwhile, and is as it was"):
        upgrade(home, uri(home), NAME, None, home / "backups")
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        assert set(connection.execute("SELECT name FROM runs")) == {("mine",)}


def test_a_link_and_who_may_read_it_stay(home: Path, tmp_path: Path) -> None:
    (home / "mlflow.db").chmod(0o600)
    (home / "mlflow.db").replace(tmp_path / "elsewhere.db")
    (home / "mlflow.db").symlink_to(tmp_path / "elsewhere.db")
    _, now, _ = upgrade(home, uri(home), NAME, None, home / "backups")
    assert (home / "mlflow.db").is_symlink() and schema(uri(home))[0] == now
    assert stat.S_IMODE((tmp_path / "elsewhere.db").stat().st_mode) == 0o600


def test_without_room_nothing_is_changed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(database: Path, copy: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(copy))

    monkeypatch.setattr(module, "copy_database", full)
    before = (home / "mlflow.db").read_bytes()
    with pytest.raises(Failure, match=r"is full .*; make room there, nothing is lost; it is as it was"):
        upgrade(home, uri(home), NAME, None, home / "backups")
    assert (home / "mlflow.db").read_bytes() == before


def test_it_waits_for_nobody(home: Path) -> None:
    before = (home / "mlflow.db").read_bytes()
    hold = f"import sys; held = open({str(home / 'mlflow.db')!r}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin and other.stdout and other.stdout.readline()
        with pytest.raises(Failure, match=rf"is open in python.* \(process {other.pid}\); stop fmnist up first"):
            upgrade(home, uri(home), NAME, None, home / "backups")
        other.stdin.close()
    assert (home / "mlflow.db").read_bytes() == before and not (home / "backups").exists()


def test_a_set_whose_schema_is_not_known_is_refused(place: Place, tmp_path: Path) -> None:
    with closing(sqlite3.connect(place.home / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'fffffffffffe'")
    made, _ = back_up(place.home, uri(place.home), None, tmp_path / "sets")
    with pytest.raises(UserError, match=r"does not know its database's schema, fffffffffffe; install the one"):
        restore(made, tmp_path / "other", NAME)
    assert not (tmp_path / "other").exists()


def test_what_it_is_not_for_is_told(place: Place) -> None:
    with pytest.raises(UserError, match="is a server; use make upgrade"):
        upgrade(place.home, "http://tracking.example", NAME, None, place.home / "backups")
    with pytest.raises(UserError, match="is not there yet"):
        upgrade(place.home, f"sqlite:///{place.home / 'other.db'}", NAME, None, place.home / "backups")
    os.truncate(place.home / "mlflow.db", 0)
    with pytest.raises(Failure, match="its schema None is none that this MLflow knows"):
        upgrade(place.home, uri(place.home), NAME, None, place.home / "backups")
