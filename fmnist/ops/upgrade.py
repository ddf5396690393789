"""MLflow's own SQLite database, moved on to what the installed MLflow reads; the platform's: `make upgrade`.

It is moved on beside the old one, compared with it, and takes its place by one rename; a set of all is kept first.
"""

import shutil
import sqlite3
from pathlib import Path

from fmnist.errors import Failure, UserError, no_room
from fmnist.files import scratch_folder, sync
from fmnist.ops.backup import RESERVE, back_up, copy_database, counts_of
from fmnist.ops.restore import check_unused, migrate
from fmnist.ops.stores import schema
from fmnist.registry import Registry, database_file


def upgrade(home: Path, uri: str, model_name: str, notebooks: Path | None, sets: Path) -> tuple[str, str, Path | None]:
    """Move the database on. Gives its schema before and now, and the set that was made; None: there was nothing to do.

    `sets`: the folder of sets. Raises UserError or Failure, and then has changed nothing.
    """
    named = database_file(uri)
    if named is None:
        raise UserError(f"MLFLOW_TRACKING_URI {uri}", "is a server; use make upgrade, or mlflow db upgrade, there")
    if not named.exists():
        raise UserError(named, "is not there yet: there is nothing to upgrade; the first training makes it")
    database = named.resolve()
    before, known = schema(uri)
    if before is None or before not in known:
        raise Failure(database, f"its schema {before} is none that this MLflow knows; install the one that made it")
    if before == known[0]:
        return before, before, None
    check_unused(home, database)
    made, _ = back_up(home, uri, notebooks, sets)
    try:
        _move_on(database, home, model_name)
    except (OSError, sqlite3.Error) as error:
        told = no_room(error) or f"cannot be moved on ({error}); mend that"
        raise Failure(database, f"{told}; it is as it was") from error
    return before, known[0], made


def _move_on(database: Path, home: Path, model_name: str) -> None:
    if shutil.disk_usage(database.parent).free < RESERVE + 2 * database.stat().st_size:
        raise Failure(database.parent, "has no room for a second copy of the database; make some, all is as it was")
    with scratch_folder(database.parent) as scratch:
        copy, was = scratch / database.name, _state(database)
        copy_database(database, copy)
        counts = counts_of(copy)
        migrate(f"sqlite:///{copy}")
        if (now := counts_of(copy)) != counts:
            raise Failure(database, f"would hold {now} instead of {counts}; nothing was changed, use the older MLflow")
        Registry(f"sqlite:///{copy}", model_name).versions()  # it opens it, and answers
        shutil.copymode(database, copy)
        sync(copy)
        check_unused(home, database)
        if _state(database) != was:  # by a command that has ended by now
            raise Failure(database, "was written to meanwhile, and is as it was; do it again when nothing else runs")
        copy.replace(database)
    sync(database.parent)


def _state(database: Path) -> tuple[object, ...]:
    """What differs once somebody has written, or is writing: SQLite's own files beside it are of the old one."""
    own = (database.with_name(f"{database.name}{end}") for end in ("-journal", "-wal"))
    return database.stat().st_mtime_ns, database.stat().st_size, [path.name for path in own if path.exists()]
