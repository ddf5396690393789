"""A workspace with thousands of runs: a real one, and as many more with the same rows and files under other ids."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.types import String

from fmnist.tracking.journal import _line

ROOT = Path(__file__).parents[1]
DAY = 24 * 60 * 60  # seconds
OLD = 10 * DAY
ONE_RUNS_TABLES = (
    *("runs", "params", "tags", "metrics", "latest_metrics", "inputs", "input_tags"),
    *("logged_models", "logged_model_params", "logged_model_tags", "model_versions", "model_version_tags"),
)


@dataclass(frozen=True)
class Ids:
    """What names a run."""

    run_id: str
    """fmnist's."""
    run_uuid: str
    """MLflow's."""
    model_id: str


def environment(home: Path) -> dict[str, str]:
    """Of commands in the workspace `home`, on a few hundred images."""
    own = {"FMNIST_HOME": str(home), "FMNIST_DATA": str(ROOT / "tests" / "data"), "FMNIST_DOWNLOAD": "no"}
    own |= {"FMNIST_SYNC_WAIT": "300", "PYTHONPATH": str(ROOT)}
    return {name: value for name, value in os.environ.items() if not name.startswith(("FMNIST_", "MLFLOW_"))} | own


def train_one(home: Path) -> Ids:
    """The real run: as many epochs as the recipe has, everything in MLflow and TensorBoard."""
    command = [sys.executable, "-m", "fmnist", "train", "--batch-size", "64", "--json"]
    run_id = json.loads(subprocess.run(command, env=environment(home), stdout=subprocess.PIPE, check=True).stdout)
    with create_engine(f"sqlite:///{home / 'mlflow.db'}").connect() as database:
        rows = database.execute(text("SELECT source_run_id, model_id FROM logged_models")).all()
    ((run_uuid, model_id),) = rows
    return Ids(run_id["run_id"], run_uuid, model_id)


def multiply(home: Path, original: Ids, count: int) -> list[Ids]:
    """`count` more runs, a minute apart, each older than the one before. Gives their ids."""
    moment = datetime.strptime(original.run_id[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    crowd = [
        Ids(
            f"{moment - timedelta(minutes=number):%Y%m%d-%H%M%S}-{secrets.token_hex(3)[:5]}",
            secrets.token_hex(16),
            f"m-{secrets.token_hex(16)}",
        )
        for number in range(1, count + 1)
    ]
    with create_engine(f"sqlite:///{home / 'mlflow.db'}").begin() as database:
        _multiply_rows(database, original, crowd)
    for one in crowd:
        _copy_folders(home, original, one)
    for path in (home / "runs", home / "tensorboard"):
        _age(path)
    return crowd


def _multiply_rows(database: Connection, original: Ids, crowd: Sequence[Ids]) -> None:
    columns = "number INTEGER PRIMARY KEY, run_id VARCHAR(32), run_uuid VARCHAR(32), model_id VARCHAR(36)"
    database.execute(text(f"CREATE TEMPORARY TABLE crowd ({columns})"))
    rows = [{"number": number, **vars(one)} for number, one in enumerate(crowd, 1)]
    database.execute(text("INSERT INTO crowd VALUES (:number, :run_id, :run_uuid, :model_id)"), rows)
    for table in ONE_RUNS_TABLES:
        database.execute(text(copies_of(table, inspect(database).get_columns(table))), vars(original))


def copies_of(table: str, columns: Iterable[Any]) -> str:
    """What gives each of the crowd its copy of the original's rows, as SQL."""
    columns = list(columns)
    names = ", ".join(f'"{column["name"]}"' for column in columns)
    values = ", ".join(_value(table, column) for column in columns)
    return f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} t CROSS JOIN crowd"


def _value(table: str, column: Any) -> str:
    """What a copy has in the column, as SQL."""
    name = f't."{column["name"]}"'
    if column["name"] == "version" and table.startswith("model_version"):
        return f"{name} + crowd.number"
    if column["name"] == "input_uuid":
        return f"substr({name}, 1, 4) || crowd.run_uuid"
    if column["name"] in ("start_time", "end_time", "timestamp"):
        return f"{name} - 60000 * crowd.number"
    if not isinstance(column["type"], String):
        return name
    for own in ("run_uuid", "model_id", "run_id"):
        name = f"replace({name}, :{own}, crowd.{own})"
    return name


def _copy_folders(home: Path, original: Ids, one: Ids) -> None:
    """Its folder and its log; what is the same in all runs is one file with many names."""
    _link(home / "tensorboard" / original.run_id, home / "tensorboard" / one.run_id)
    source, folder = home / "runs" / original.run_id, home / "runs" / one.run_id
    folder.mkdir()
    for path in source.iterdir():
        if path.name == "journal.jsonl":
            first, rest = path.read_bytes().split(b"\n", 1)
            start = json.loads(json.loads(first)["record"]) | {"run_id": one.run_id}
            (folder / path.name).write_bytes(_line(start) + rest)
        elif path.name == "shipping.json":
            (folder / path.name).write_text(path.read_text().replace(original.run_uuid, one.run_uuid))
        elif not path.name.endswith("lock"):
            os.link(path, folder / path.name)


def _link(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=os.link)


def delete(home: Path, original: Ids, gone: Sequence[Ids]) -> None:
    """As the buttons in MLflow do with versions and runs, days ago. Their files are there, as in real life."""
    with create_engine(f"sqlite:///{home / 'mlflow.db'}").begin() as database:
        database.execute(text("CREATE TEMPORARY TABLE gone (run_uuid VARCHAR(32) PRIMARY KEY)"))
        database.execute(text("INSERT INTO gone VALUES (:run_uuid)"), [vars(one) for one in gone])
        of_version = "version IN (SELECT version FROM model_versions WHERE run_id IN (SELECT run_uuid FROM gone))"
        database.execute(text(f"DELETE FROM model_version_tags WHERE {of_version}"))
        database.execute(text("DELETE FROM model_versions WHERE run_id IN (SELECT run_uuid FROM gone)"))
        change = "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = :moment"
        moment = int((time.time() - OLD) * 1000)
        database.execute(text(f"{change} WHERE run_uuid IN (SELECT run_uuid FROM gone)"), {"moment": moment})
    artifacts = home / "artifacts"
    for one in gone:
        _link(artifacts / original.run_uuid, artifacts / one.run_uuid)
        _link(artifacts / "models" / original.model_id, artifacts / "models" / one.model_id)


def _age(folder: Path) -> None:
    """So that `gc` takes nothing for young."""
    then = time.time() - OLD
    for path in folder.rglob("*"):
        os.utime(path, (then, then))
