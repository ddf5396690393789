"""MLflow's own SQLite database, moved on to what the installed MLflow reads; the platform's: `make upgrade`.

It is moved on beside the old one, compared with it, and takes its place by one rename; a set of all is kept first.
"""

from pathlib import Path

from fmnist.errors import Failure, UserError
from fmnist.files import scratch_folder, sync
from fmnist.ops.backup import back_up, copy_database, counts_of
from fmnist.ops.restore import check_unused, migrate
from fmnist.ops.stores import schema
from fmnist.registry import Registry, database_file


def upgrade(home: Path, uri: str, model_name: str, notebooks: Path | None, sets: Path) -> tuple[str, str, Path | None]:
    """Move the database on. Gives its schema before and now, and the set that was made; None: there was nothing to do.

    `sets`: the folder of sets. Raises UserError or Failure, and then has changed nothing.
    """
    database = database_file(uri)
    if database is None:
        raise UserError(
            f"MLFLOW_TRACKING_URI {uri}", "is a server; where that runs: make upgrade, or mlflow db upgrade"
        )
    if not database.exists():
        raise UserError(database, "is not there yet: there is nothing to upgrade; the first training makes it")
    before, known = schema(uri)
    if before is None or before not in known:
        raise Failure(database, f"its schema {before} is none that this MLflow knows; install the one that made it")
    if before == known[0]:
        return before, before, None
    check_unused(home, database)
    made, _ = back_up(home, uri, notebooks, sets)
    with scratch_folder(database.parent) as scratch:
        copy = scratch / database.name
        copy_database(database, copy)
        counts = counts_of(copy)
        migrate(f"sqlite:///{copy}")
        if (now := counts_of(copy)) != counts:
            raise Failure(database, f"would hold {now} instead of {counts}; nothing was changed, use the older MLflow")
        Registry(f"sqlite:///{copy}", model_name).versions()  # it opens it, and answers
        sync(copy)
        check_unused(home, database)  # somebody may have begun meanwhile
        copy.replace(database)
    sync(database.parent)
    return before, known[0], made
