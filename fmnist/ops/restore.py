"""A backup set put in the place of what a workspace has recorded.

Everything is unpacked, moved to its new place on paper, and seen to answer, beside what is there; only then do folders
change places, by renames that a second start finishes if the first was killed. What was there is kept.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from fmnist.errors import Failure, UserError, one_line
from fmnist.files import file_of, is_locked, make_folder, scratch_folder, sha256_of, sync, write_whole
from fmnist.ops.backup import counts_of
from fmnist.ops.sets import DATABASE, IN_HOME, MANIFEST, Manifest, unpack, verified
from fmnist.ops.stores import schema
from fmnist.registry import CHAMPION, Registry, database_file
from fmnist.settings import RESTORING
from fmnist.sweep import list_tracked

PARTS = (f"{DATABASE}-journal", f"{DATABASE}-wal", f"{DATABASE}-shm", DATABASE, *IN_HOME)
"""SQLite's own files of a database go with it, first: of one that was cut off they would be written into another."""


def restore(chosen: Path, home: Path, model_name: str) -> tuple[Manifest, Path | None]:
    """Put the set `chosen` in the place of what is in `home`. Gives its manifest, and where that is now kept.

    Raises UserError or Failure, and then has changed nothing. Notebooks are not touched: they stay in the set.
    """
    manifest = verified(chosen)
    if manifest.platform:
        raise UserError(
            chosen, f"is a set of the platform, with Postgres; put it back there: make restore FROM={chosen}"
        )
    if DATABASE in manifest.files:
        _check_known(chosen / DATABASE, manifest)
    check_unused(home)
    with scratch_folder(home) as scratch:
        staged = scratch / RESTORING
        staged.mkdir()
        try:
            for name in IN_HOME:
                if f"{name}.tar" in manifest.files:
                    unpack(chosen / f"{name}.tar", staged / name)
            if DATABASE in manifest.files:
                shutil.copyfile(chosen / DATABASE, staged / DATABASE)
                sync(staged / DATABASE)
                _move_on_paper(staged, manifest.home, home)
                _check_answers(staged, manifest, home, model_name)
        except (OSError, sqlite3.Error) as error:
            raise Failure(home, f"takes no restored set ({error}); make room, all is as it was") from error
        check_unused(home)  # somebody may have begun meanwhile
        before = parts_in(home)
        kept = home / f"before-{datetime.now(UTC):%Y%m%d-%H%M%S}" if before else None
        write_whole(staged / "kept", "\n".join([kept.name if kept else "", *before]))
        staged.replace(home / RESTORING)
    sync(home)
    finish(home)
    return manifest, kept


def check_target(uri: str, home: Path) -> None:
    """Raise UserError where MLflow's records are a server's, or elsewhere than a restore puts them."""
    database, own = database_file(uri), home / DATABASE
    if database is None:
        raise UserError(f"MLFLOW_TRACKING_URI {uri}", "is a server, which has its own restore; unset it for this one's")
    if database.resolve() != own.resolve():
        raise UserError(f"MLFLOW_TRACKING_URI {uri}", f"is not where a set's database is put; unset it: {own} is")


def sets_in(place: Path) -> list[str]:
    return sorted(str(manifest.parent) for manifest in place.glob(f"*/{MANIFEST}")) or [f"none in {place} yet"]


def parts_in(home: Path) -> list[str]:
    """What of a workspace would give way to a set."""
    return [name for name in PARTS if (home / name).exists()]


def finish(home: Path) -> bool:
    """Have the parts of a restore take their places, all or those that are left. False where there are none."""
    staged = home / RESTORING
    if not staged.exists():
        return False
    name, *before = (staged / "kept").read_text().split("\n")
    for part in PARTS:
        new, current = staged / part, home / part
        if part in before and not (home / name / part).exists():
            current.replace(make_folder(home / name) / part)
        if new.exists():
            new.replace(current)
    sync(home)
    with scratch_folder(home) as scratch:  # at one blow: half of it could not be finished
        staged.replace(scratch / RESTORING)
    return True


def _check_known(database: Path, manifest: Manifest) -> None:
    """MLflow's newer databases are not read by an older MLflow."""
    current, known = schema(f"sqlite:///{database.resolve()}")
    if current not in known:
        told = f"the MLflow here, {version('mlflow')}, does not know its database's schema, {current}"
        by = manifest.versions["mlflow"]
        raise UserError(database.parent, f"{told}; install the one that made it, which may be {by}, first")


def check_unused(home: Path, own: Path | None = None) -> None:
    """Raise Failure where a training or a server uses the workspace now. `own`: its database, if it lies elsewhere."""
    for run in list_tracked(home):
        if run.is_locked or is_locked(run.folder / "shipping.lock"):
            raise Failure(run.title, "is being trained or sent; wait for it, or stop it")
    database = (own or home / DATABASE).resolve()
    for process in psutil.process_iter():
        try:
            is_open = process.pid != os.getpid() and any(file.path == str(database) for file in process.open_files())
        except (psutil.Error, OSError):  # somebody else's, or over
            continue
        if is_open:
            raise Failure(database, f"is open in {process.name()} (process {process.pid}); stop fmnist up first")


def _move_on_paper(staged: Path, before: str, home: Path) -> None:
    """Name the files of another workspace by where they are now: in the database, and in how far runs were sent."""
    old, new = Path(before), home.resolve()
    if old == new:
        return
    with closing(sqlite3.connect(staged / DATABASE)) as connection, connection:
        for table, column in _text_columns(connection):
            for one, other in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
                connection.execute(
                    f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) WHERE substr("{column}", 1, ?) = ?',
                    (f"{other}/", len(one) + 2, len(one) + 1, f"{one}/"),
                )
    for run in list_tracked(staged):
        if run.shipping.exists():
            lanes = json.loads(run.shipping.read_text())
            renamed = {name.replace(f"{old}/", f"{new}/"): state for name, state in lanes.items()}
            write_whole(run.shipping, json.dumps(renamed, indent=1))


def _text_columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Those that may name a file."""
    query = """SELECT tables.name, columns.name FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns
        WHERE tables.type = 'table' AND (columns.type LIKE '%CHAR%' OR columns.type LIKE '%TEXT%')"""
    return list(connection.execute(query))


def _check_answers(staged: Path, manifest: Manifest, home: Path, model_name: str) -> None:
    """Raise Failure unless MLflow opens the database, and it holds what the manifest says, the champion's file too."""
    counts = counts_of(staged / DATABASE)
    for name, count in counts.items():
        if count != manifest.counts[name]:
            raise Failure(DATABASE, f"holds {count} {name}, its manifest says {manifest.counts[name]}; use another set")
    uri = f"sqlite:///{staged / DATABASE}"
    current, known = schema(uri)
    if current != known[0]:  # whichever MLflow was there when the set was made
        migrate(uri)
    for one in Registry(uri, model_name).versions():
        if CHAMPION in one.aliases:
            place = _champion_place(staged / DATABASE, model_name)
            path = staged / place.relative_to(home.resolve()) / "model.onnx"
            if not path.is_file() or sha256_of(path) != one.sha256:
                raise Failure(f"version {one.number}", "is the champion, and its file is not in the set; use another")


def migrate(uri: str) -> None:
    """Move the database at `uri` on to what this MLflow reads. Raises Failure."""
    done = subprocess.run([sys.executable, "-P", "-m", "mlflow", "db", "upgrade", uri], capture_output=True, text=True)
    if done.returncode:
        raise Failure("mlflow db upgrade", f"fails ({one_line(done.stderr[-200:])}); use the MLflow that made it")


def _champion_place(database: Path, model_name: str) -> Path:
    query = """SELECT storage_location FROM model_versions JOIN registered_model_aliases USING (name, version)
        WHERE name = ? AND alias = ?"""
    with closing(sqlite3.connect(database)) as connection:
        (place,) = connection.execute(query, (model_name, CHAMPION)).fetchone()
    path = file_of(place)
    assert path is not None  # `back_up` saw to it
    return path
