"""Where runs and models are kept: MLflow's database, its artifacts, its registry."""

import http.client
import tempfile
import uuid
from pathlib import Path

from fmnist.errors import Failure, UserError, one_line
from fmnist.files import sha256_of
from fmnist.ops.finding import Finding, complaint
from fmnist.ops.remote import ask, local_trial, remote_trial
from fmnist.registry import CHAMPION, PREVIOUS, Registry, database_file
from fmnist.serve.releases import Absent, Source
from fmnist.serve.rest import RestSource
from fmnist.serve.sqlite import SqliteSource


def database(uri: str, model_name: str) -> Finding:
    place = Registry(uri, model_name)
    try:
        if place.is_empty_place:
            return Finding("database", "ok", f"{one_line(uri)}: not made yet, the first training makes it")
        if not uri.startswith("http"):
            return _own_database(uri, place)
        place.probe()  # its health says nothing of the database behind it
        status, _ = ask("GET", uri, "/api/2.0/mlflow/experiments/get?experiment_id=0")
        if status != http.client.OK:
            raise Failure(uri, f"answers a question about runs with {status}")
    except (Failure, UserError, OSError, http.client.HTTPException) as error:
        return Finding("database", "bad", one_line(error), "start MLflow, or mend its database; its log says more")
    return Finding("database", "ok", one_line(uri))


def _own_database(uri: str, place: Registry) -> Finding:
    """The schema goes first: MLflow changes an older one when it opens it, or refuses it."""
    current, known = schema(uri)
    told = f"{one_line(uri)}: its schema is {current or 'none of MLflow’s'}"
    if current is None or current not in known:
        remedy = "if a newer MLflow made it: install that; else: fmnist restore SET"
        return Finding("database", "bad", f"{told}, which this MLflow does not know", remedy)
    if current != known[0]:
        remedy = (
            "fmnist upgrade; it keeps a backup first" if database_file(uri) else f"mlflow db upgrade {one_line(uri)}"
        )
        return Finding("database", "bad", f"{told}, this MLflow's is {known[0]}", remedy)
    with place.client() as client:
        client.search_experiments(max_results=1)
    return Finding("database", "ok", f"{one_line(uri)}, its schema is current")


def schema(uri: str) -> tuple[str | None, list[str]]:
    """(the database's revision, all that the installed MLflow knows, newest first). Changes nothing. Raises Failure."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    engine = create_engine(uri)
    try:
        with engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        raise Failure(uri, f"cannot be read ({one_line(error)[:120]})") from error
    finally:
        engine.dispose()
    import mlflow  # takes seconds: what is no database is told without it

    steps = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return current, [step.revision for step in steps.walk_revisions()]


def artifacts(uri: str, folder: Path) -> Finding:
    """Written, read back, deleted: a few bytes."""
    what, name, content = "artifact store", f"doctor-{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
    if not uri.startswith("http"):
        place, trial = str(folder), local_trial(folder / name)
    else:
        place, trial = f"through {one_line(uri)}", remote_trial(uri, f"/api/2.0/mlflow-artifacts/artifacts/{name}")
    try:
        back = trial(content)
    except (OSError, Failure, http.client.HTTPException) as error:
        return Finding(what, "bad", f"{place}: {one_line(error)}", "make room, or mend where it writes")
    if back != content:
        return Finding(what, "bad", f"{place}: gave back other bytes than it got", "mend its disk or bucket")
    return Finding(what, "ok", f"{place}: written, read back, deleted")


def registry(uri: str, name: str) -> Finding:
    """Whether the models of champion and previous are there, and are those that were registered."""
    if _source(uri, name, CHAMPION) is None:
        return Finding("registry", "off", f"{one_line(uri)}: only MLflow's own programs read it")
    if Registry(uri, name).is_empty_place:
        return Finding("registry", "off", f"no champion of {name} yet")
    told = []
    for alias in (CHAMPION, PREVIOUS):
        source = _source(uri, name, alias)
        assert source is not None
        try:
            version = _checked(source, alias)
        except Absent as error:
            return Finding("registry", "warning", f"not known: {one_line(error)}", "see the database's line")
        except Failure as error:
            return complaint("registry", "bad" if alias == CHAMPION else "warning", error)
        if version:
            told.append(f"{alias} is version {version}")
    if not told:
        return Finding("registry", "off", f"no champion of {name} yet")
    return Finding("registry", "ok", f"{', '.join(told)}: there, with the hash that was registered")


def _source(uri: str, name: str, alias: str) -> Source | None:
    if file := database_file(uri):
        return SqliteSource(file, name, alias)
    return RestSource(uri, name, alias) if uri.startswith("http") else None


def _checked(source: Source, alias: str) -> str | None:
    """The version's number, None where there is none. Raises Failure for a model that is gone or another."""
    release = source.find()
    if release is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        found = sha256_of(source.fetch(release, Path(folder)))
    if found != release.sha256:
        who = f"{alias}, version {release.version}"
        problem = f"its file has the SHA-256 {found[:12]}, on record is {release.sha256[:12] or 'none'}"
        raise Failure(who, f"{problem}; promote another: fmnist promote VERSION, or restore a backup")
    return release.version
