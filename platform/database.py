"""MLflow's database, as Postgres's superuser sees it from inside its container."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator

from engine import ROOT, Trouble, compose, containers, stream
from starting import make_secrets

CURRENT, NEXT = "mlflow", "mlflow_next"
"""The one that MLflow uses, and one that is to take its place."""
OWNER, SUPERUSER = "mlflow", "postgres"
"""Of those; and whoever has the database of its own name."""
LOADER = "mlflow_loader"
"""Who runs what a dump holds: it is SQL, and maybe a stranger's, so it is nobody whose database could be deleted."""
COUNTED = ("experiments", "runs", "metrics", "params", "tags", "registered_models", "model_versions")
"""Tables whose rows a set's manifest tells, so that a restore can be compared."""
_PSQL = ("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align")
_EXEC = ("exec", "--no-TTY", "postgres")
_COUNT = " UNION ALL ".join(f"SELECT '{name}|' || count(*) FROM {name}" for name in COUNTED) + ";\n"


def kept_name(time: str) -> str:
    return f"{CURRENT}_before_{time.replace('-', '_')}"


def wake() -> None:
    make_secrets()  # after a reset there are none
    compose("up", "--detach", "--wait", "postgres", capture_output=True)


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Postgres runs, in a platform that was stopped too; then it is stopped again."""
    states = [container["State"] for container in containers() if container["Service"] == "postgres"]
    if states != ["running"]:
        wake()
    if states in (["running"], ["restarting"]):  # it comes back by itself, and others need it
        yield
        return
    try:
        yield
    finally:
        compose("stop", "postgres", check=False, capture_output=True)


def ask(query: str, database: str = CURRENT, user: str | None = None) -> list[str]:
    """The answer's lines. Raises Trouble.

    In MLflow's databases as MLflow's user: what a stranger's dump has made there, a query may run.
    """
    user = user or (database if database == SUPERUSER else OWNER)
    command = (*_PSQL, "--username", user, "--set", "ON_ERROR_STOP=1", "--dbname", database)
    return _said(compose(*_EXEC, *command, input=query, check=False, capture_output=True)).splitlines()


def _said(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        told = next((line for line in lines if "ERROR:" in line or "FATAL:" in line), lines[-1])
        raise Trouble(f"database: {told.partition('ERROR:')[2].strip() or told.strip()}; see make logs ARGS=postgres")
    return done.stdout


def exists(name: str) -> bool:
    return ask(f"SELECT 1 FROM pg_database WHERE datname = '{name}';", SUPERUSER) == ["1"]


def has_tables() -> bool:
    """Whether MLflow has made its tables yet."""
    return ask("SELECT to_regclass('runs') IS NOT NULL AND to_regclass('alembic_version') IS NOT NULL;") == ["t"]


def counts(database: str = CURRENT) -> dict[str, int]:
    return _counts(ask(_COUNT, database))


def _counts(lines: list[str]) -> dict[str, int]:
    return {name: int(number) for name, _, number in (line.partition("|") for line in lines)}


def size() -> int:
    """Bytes of it on the disk."""
    return int(ask(f"SELECT pg_database_size('{CURRENT}');")[0])


def schema(database: str = CURRENT) -> str:
    """MLflow's name of the version of its tables."""
    return ask("SELECT version_num FROM alembic_version;", database)[0]


def room() -> int:
    """Bytes that are free where it lies."""
    told = compose(*_EXEC, "df", "--block-size=1", "--output=avail", "/var/lib/postgresql/data", capture_output=True)
    return int(told.stdout.split()[-1])


@contextlib.contextmanager
def moment() -> Iterator[tuple[str, dict[str, int], str]]:
    """One moment of it, for as long as others read that too: (its name, counts, schema)."""
    command = ["docker", "compose", *_EXEC, *_PSQL, "--username", OWNER, "--dbname", CURRENT]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        process.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\nSELECT pg_export_snapshot();\n")
        process.stdin.write(f"{_COUNT}SELECT version_num FROM alembic_version;\n")
        process.stdin.flush()
        lines = [process.stdout.readline().strip() for _ in range(len(COUNTED) + 2)]
        try:
            if not all(lines):
                raise Trouble(f"database: cannot be read ({process.communicate()[1].strip()[-200:]}); make status")
            yield lines[0], _counts(lines[1:-1]), lines[-1]
        finally:
            process.stdin.close()  # psql ends with it


def dump(snapshot: str, write: Callable[[bytes], Any]) -> None:
    command = ("pg_dump", "--username", OWNER, "--format", "custom", f"--snapshot={snapshot}", CURRENT)
    stream(write, "compose", *_EXEC, *command)


def check_dump(file: Path) -> None:
    """Raise Trouble unless pg_restore reads all of it."""
    _feed(file, "pg_restore", "--file", "/dev/null")


def load(file: Path) -> None:
    """Make the next database, of what was dumped."""
    drop(NEXT)
    ask(f"DROP ROLE IF EXISTS {LOADER}; CREATE ROLE {LOADER} LOGIN;", SUPERUSER)
    make_next(owner=LOADER)
    user = ("--username", LOADER)
    _feed(file, "pg_restore", *user, "--no-owner", "--no-privileges", "--exit-on-error", "--dbname", NEXT)
    given = f"REASSIGN OWNED BY {LOADER} TO {OWNER}; DROP OWNED BY {LOADER}; DROP ROLE {LOADER};"
    ask(f"BEGIN; {given} COMMIT;", NEXT, SUPERUSER)


def _feed(file: Path, *command: str) -> None:
    with file.open("rb") as content:
        _said(compose(*_EXEC, *command, stdin=content, check=False, capture_output=True))


def make_next(template: str = "template0", owner: str = OWNER) -> None:
    drop(NEXT)
    ask(f"CREATE DATABASE {NEXT} OWNER {owner} TEMPLATE {template};", SUPERUSER)
    ask(f"REVOKE ALL ON DATABASE {NEXT} FROM PUBLIC;", SUPERUSER)


def drop(name: str) -> None:
    ask(f"DROP DATABASE IF EXISTS {name} WITH (FORCE);", SUPERUSER)


def rename(*pairs: tuple[str, str]) -> None:
    """All of (old name, new name), or none. Whoever is connected is sent away."""
    names = ", ".join(f"'{old}'" for old, _ in pairs)
    leave = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({names});"
    renames = "".join(f"ALTER DATABASE {old} RENAME TO {new};" for old, new in pairs)
    ask(f"{leave} BEGIN; {renames} COMMIT;", SUPERUSER)
