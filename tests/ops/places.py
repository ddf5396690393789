"""A workspace in which something is garbage, and what is in it."""

import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow

from fmnist.files import sha256_of
from fmnist.ops.garbage import Garbage, clear, find_garbage
from fmnist.ops.leftovers import FETCHED, LOGS, SCRATCH, UNBEGUN, Yard
from fmnist.run import Run
from fmnist.tracking.wiring import Destinations

DAY = 24 * 60 * 60
RUNS = [f"20260101-000000-0000{number}" for number in (1, 2, 3)]
NAME = "fashion-mnist"
ORPHAN = "20250101-000000-00009"


class Place:
    """A workspace with three tracked runs, each with a registered version, all of it ten days old."""

    def __init__(self, home: Path) -> None:
        uri = f"sqlite:///{home / 'mlflow.db'}"
        logs = home / "tensorboard"
        self.home = home
        self.yard = Yard(home, Destinations(uri, NAME, NAME, home / "artifacts", logs), 7)
        mlflow.set_tracking_uri(uri)  # where MLflow looks for a logged model, whatever the client was told
        self.client: Any = mlflow.MlflowClient(uri, uri)
        for run_id in RUNS:
            self.sent(run_id, "mlflow " + uri)
            (logs / run_id).mkdir(parents=True)
            (logs / run_id / "events.out.1").write_bytes(b"e" * 100)
        self.age()

    def sent(self, run_id: str, *lanes: str, ended: bool = True) -> None:
        values = {lane: {"sent": 5, "error": None, "ended": ended} for lane in lanes}
        self.run(run_id).shipping.write_text(json.dumps(values))

    def run(self, run_id: str) -> Run:
        return Run(self.home / "runs" / run_id)

    def log(self, run_id: str) -> Path:
        return self.yard.destinations.logs / run_id

    def age(self, days: float = 10) -> None:
        for path in (self.home, *self.home.rglob("*")):
            os.utime(path, (time.time() - days * DAY,) * 2)

    def mlflow_run(self, run_id: str) -> Any:
        found = self.client.search_runs(["1"], f"tags.`fmnist.run_id` = '{run_id}'", run_view_type=3)
        return found[0] if found else None

    def delete_version(self, number: int) -> None:
        self.client.delete_model_version(NAME, str(number))

    def delete_run(self, run_id: str, days: float = 10) -> None:
        """As the button in MLflow does, so many days ago."""
        run = self.mlflow_run(run_id).info.run_id
        self.client.delete_run(run)
        self.date(run, "deleted_time", days)

    def end(self, run_id: str, days: float) -> None:
        self.date(self.mlflow_run(run_id).info.run_id, "end_time", days)

    def date(self, run: str, column: str, days: float) -> None:
        moment = int((time.time() - days * DAY) * 1000)
        execute(self.home / "mlflow.db", f"UPDATE runs SET {column} = ? WHERE run_uuid = ?", moment, run)

    def find(self) -> Garbage:
        return find_garbage(self.yard)

    def named(self, kind: str) -> list[str]:
        return [piece.name for piece in self.find().pieces if piece.kind == kind]

    def clear(self) -> list[str]:
        gone, failures = clear(self.find().pieces)
        assert not failures
        return [piece.name for piece in gone]


def rename_places(database: Path, old: Path, new: Path) -> None:
    columns = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}
    columns |= {"model_versions": "storage_location"}
    for name, column in columns.items():
        execute(database, f"UPDATE {name} SET {column} = replace({column}, ?, ?)", str(old), str(new))


def execute(database: Path, command: str, *values: object) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(command, values)


def digests(*folders: Path) -> dict[Path, str]:
    return {file: sha256_of(file) for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()}


def files_of(place: Place, run_id: str) -> list[Path]:
    """All that is kept of a run: here, and in MLflow."""
    run = place.mlflow_run(run_id)
    assert run is not None
    models = place.client.search_logged_models(["1"], f"source_run_id = '{run.info.run_id}'")
    addresses = [run.info.artifact_uri, *(model.artifact_location for model in models)]
    return [place.run(run_id).folder, place.log(run_id), *(Path(a.removeprefix("file://")) for a in addresses)]


def litter(place: Place) -> None:
    """One of each kind that belongs to nothing, and what only looks like it."""
    (place.home / "runs" / ORPHAN).mkdir()
    (place.home / "runs" / ORPHAN / ".config.json.tmp").write_bytes(b"1234")
    log = place.log("20250202-000000-00008")
    log.mkdir()
    (log / "events.out.1").write_bytes(b"12345")
    for path in (place.home / "models" / f"{'0' * 64}.onnx", place.home / "runs" / ".scratch-1" / "a" / "b"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"123456")
    model = place.run(RUNS[0]).model
    shutil.copy(model, place.home / "models" / f"{sha256_of(model)}.onnx")
    (place.home / "runs" / "20250101-000000-00007").mkdir()  # whatever it was, it is not ours to judge
    (place.home / "runs" / "20250101-000000-00007" / "model.onnx").write_bytes(b"precious")
    (place.log("mine")).mkdir()


LITTER = {UNBEGUN: [ORPHAN], LOGS: ["20250202-000000-00008"], FETCHED: [f"{'0' * 64}.onnx"], SCRATCH: [".scratch-1"]}


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
