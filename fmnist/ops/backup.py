"""One consistent set of all that a workspace has recorded, made while trainings go on.

What makes it consistent is the order: first how far each run's records were sent, then the database, then the rest. So
the database never knows of a file that the set lacks, and what was recorded meanwhile is sent again after a restore.
"""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from fmnist.errors import Failure, UserError
from fmnist.files import file_of, make_folder, scratch_folder, sha256_of, sync
from fmnist.ops.leftovers import weight
from fmnist.ops.sets import DATABASE, IN_HOME, NOTEBOOKS, TRACKED, Manifest, check_links, pack, verified, write_manifest
from fmnist.registry import database_file
from fmnist.run import list_runs
from fmnist.sweep import list_tracked

COUNTED = ("experiments", "runs", "metrics", "params", "tags", "registered_models", "model_versions")
"""Tables whose rows a set's manifest tells, so that a restore can be compared."""
RESERVE = 64 << 20
"""Bytes that stay free on the disk."""


def back_up(home: Path, uri: str, notebooks: Path | None, place: Path) -> tuple[Path, Manifest]:
    """A set of the workspace `home`, verified, as a new folder in `place`. Raises UserError or Failure, and makes none.

    `uri`: MLflow's address. `notebooks`: a folder that is kept too.
    """
    database = database_file(uri)
    if database is None:
        raise UserError(f"MLFLOW_TRACKING_URI {uri}", "is a server, which has its own backup; unset it for this one's")
    now = datetime.now(UTC)
    target = make_folder(place) / f"fmnist-{now:%Y%m%d-%H%M%S}"
    if target.exists():
        raise UserError(target, "is there already; wait a second")
    _check_room(home, place)
    try:
        with scratch_folder(place) as scratch:
            folder = scratch / target.name
            folder.mkdir()
            _write_set(folder, home, database, notebooks, now)
            manifest = verified(folder)
            folder.replace(target)
        sync(place)
    except (OSError, sqlite3.Error) as error:
        raise Failure(place, f"takes no backup ({error}); make room or choose another place with --to") from error
    return target, manifest


def _check_room(home: Path, place: Path) -> None:
    """Raise Failure where the disk cannot hold the set, before it is filled."""
    needed = RESERVE + sum(weight(home / name) for name in (*IN_HOME, DATABASE))
    if (free := shutil.disk_usage(place).free) < needed:
        raise Failure(
            place, f"has {free / 1e6:,.0f} MB free, the set needs {needed / 1e6:,.0f}; make room or choose --to"
        )


def _write_set(folder: Path, home: Path, database: Path, notebooks: Path | None, now: datetime) -> None:
    sent = {run.shipping: run.shipping.read_bytes() for run in list_tracked(home) if run.shipping.exists()}

    def as_sent(path: Path) -> bytes | None:
        return sent.get(path, b"{}" if path.name == "shipping.json" else None)  # begun since: nothing of it was

    files, counts = {}, {}
    if database.exists():
        copy_database(database, folder / DATABASE)
        _check_places(folder / DATABASE, home.resolve())
        counts = counts_of(folder / DATABASE)
        files[DATABASE] = ((folder / DATABASE).stat().st_size, sha256_of(folder / DATABASE))
    for name in IN_HOME:
        if (home / name).is_dir():
            check_links(home / name)
            files[f"{name}.tar"] = pack(home / name, folder / f"{name}.tar", as_sent if name in TRACKED else None)
    if notebooks and notebooks.is_dir():
        files[f"{NOTEBOOKS}.tar"] = pack(notebooks, folder / f"{NOTEBOOKS}.tar")
    counts["folders of runs"] = len(list_runs(home / "runs"))
    versions = {name: version(name) for name in ("fmnist", "mlflow")}
    write_manifest(folder, Manifest(now.isoformat(timespec="seconds"), str(home.resolve()), versions, counts, files))


def copy_database(database: Path, copy: Path) -> None:
    """SQLite's online backup: one moment of it, whoever writes meanwhile. Raises Failure where it is damaged."""
    address = f"{database.resolve().as_uri()}?mode=rw"  # for what a kill has left: SQLite brings that in order first
    with closing(sqlite3.connect(address, uri=True, timeout=60)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        (told,) = target.execute("PRAGMA quick_check(1)").fetchone()
    if told != "ok":
        raise Failure(database, f"is damaged ({told}); restore an earlier backup")
    sync(copy)


def _check_places(database: Path, home: Path) -> None:
    """Raise Failure for a registered model that the set would not have."""
    with closing(sqlite3.connect(database)) as connection:
        places = connection.execute("SELECT version, storage_location FROM model_versions").fetchall()
    for number, place in places:
        path = file_of(place or "")
        if path and not path.is_relative_to(home):
            raise Failure(
                f"version {number}", f"its files lie in {path}, outside {home}; move the workspace back to its place"
            )


def counts_of(database: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        there = {name for (name,) in found}
        rows = {name: f"SELECT count(*) FROM {name}" for name in COUNTED if name in there}
        return {name: connection.execute(query).fetchone()[0] for name, query in rows.items()}
