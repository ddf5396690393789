"""MLflow's registry in its SQLite database, read only: importing MLflow takes 200 MB and seconds.

The tables are those of the MLflow version in constraints.txt; a test asks a database that MLflow itself made.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from fmnist.errors import one_line
from fmnist.registry import CHAMPION, RUN_ID_TAG
from fmnist.serve.releases import PATIENCE, Absent, Release, described, gone, kind_of, local_file, parsed


class SqliteSource:
    """A version in MLflow's SQLite database, which is read only."""

    def __init__(self, path: Path, name: str, reference: str = CHAMPION) -> None:
        self._path, self._name, self._reference = path.resolve(), name, reference

    def find(self) -> Release | None:
        if not self._path.exists():
            return None
        wanted = {
            "number": ":wanted",
            "run": f"(SELECT version FROM model_version_tags WHERE name = :name AND key = '{RUN_ID_TAG}'"
            " AND value = :wanted)",
            "alias": "(SELECT version FROM registered_model_aliases WHERE name = :name AND alias = :wanted)",
        }[kind_of(self._reference)]
        rows = self._rows(
            "SELECT version, run_id, creation_time AS creation_timestamp FROM model_versions v "
            f"WHERE v.name = :name AND v.current_stage != 'Deleted_Internal' AND v.version = {wanted}"
        )
        if not rows:
            return None
        tags = self._rows(
            "SELECT key, value FROM model_version_tags WHERE name = :name AND version = :version",
            version=rows[0]["version"],
        )
        return described(rows[0], {tag["key"]: tag["value"] for tag in tags})

    def fetch(self, release: Release, folder: Path) -> Path:
        place = "SELECT storage_location AS place FROM model_versions WHERE name = :name AND version = :version"
        path = self._file("model.onnx", place, version=release.version)
        if path is None:
            raise gone(self._name, release)
        return path

    def report(self, release: Release, name: str) -> Any:
        place = "SELECT artifact_uri AS place FROM runs WHERE run_uuid = :run"
        path = self._file(name, place, run=release.mlflow_run)
        return parsed(path.read_bytes()) if path else None

    def _file(self, name: str, query: str, **values: Any) -> Path | None:
        rows = self._rows(query, **values)
        return local_file(rows[0]["place"], name) if rows else None

    def _rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        values |= {"name": self._name, "wanted": self._reference}
        try:
            with closing(sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, timeout=PATIENCE)) as database:
                database.row_factory = sqlite3.Row
                return [dict(row) for row in database.execute(query, values)]
        except sqlite3.Error as error:
            raise Absent(self._path, f"cannot be read ({one_line(error)}); is it MLflow's?") from error
