"""Models that may be served, and where they come from: a file here, MLflow's registry in `rest.py` and `sqlite.py`."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from fmnist.errors import Failure
from fmnist.files import file_of, sha256_of
from fmnist.registry import RUN_ID_TAG, is_number, scores_of

PATIENCE = 5
"""Seconds for one answer of MLflow."""


@dataclass(frozen=True)
class Release:
    """A model that may be served, as whoever keeps it describes it."""

    version: str
    """What answers name: a version's number, a run's id, a file's name."""
    sha256: str
    run_id: str = ""
    """fmnist's id of the run that trained it."""
    created: float = 0
    """Unix time."""
    scores: dict[str, float] | None = None
    """val_accuracy, test_f1 and so on."""
    mlflow_run: str = ""
    has_golden: bool = False


class Absent(Failure):
    """Whoever keeps the models can't be asked now."""


class Source(Protocol):
    """What the keeper asks, again and again."""

    def find(self) -> Release | None:
        """What is to be served now, None if there is nothing yet. Raises Absent, or UserError for a wrong name."""

    def fetch(self, release: Release, folder: Path) -> Path:
        """Its ONNX file, perhaps copied into `folder`. Raises Absent, or Failure where it is gone."""

    def report(self, release: Release, name: str) -> Any:
        """A JSON file of its run, such as report/golden.json; None where it isn't there. Raises Absent."""


class FileSource:
    """An .onnx file; one that replaces it is taken over too."""

    def __init__(self, path: Path, version: str = "") -> None:
        self._path, self._version = path, version or path.name
        self._seen: tuple[tuple[int, int], Release] | None = None

    def find(self) -> Release:
        try:
            about = self._path.stat()
            mark = about.st_mtime_ns, about.st_size
            if self._seen is None or self._seen[0] != mark:
                self._seen = mark, Release(self._version, sha256_of(self._path), created=about.st_mtime)
        except OSError as error:
            raise Absent(self._path, f"cannot be read ({error.strerror}); name an .onnx file") from error
        return self._seen[1]

    def fetch(self, release: Release, folder: Path) -> Path:
        return self._path

    def report(self, release: Release, name: str) -> None:
        return None


class SentSource:
    """An .onnx file as it is now, for machines that do not have it."""

    def __init__(self, source: FileSource) -> None:
        """Raises Absent where it can't be read."""
        self._release = source.find()
        self._content = source.fetch(self._release, Path()).read_bytes()

    def find(self) -> Release:
        return self._release

    def fetch(self, release: Release, folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(self._content)
        return path

    def report(self, release: Release, name: str) -> None:
        return None


def described(row: Any, tags: dict[str, str]) -> Release:
    """What MLflow knows of a version. `row`: version, run_id and creation_timestamp."""
    return Release(
        version=str(row["version"]),
        sha256=tags.get("sha256", ""),
        run_id=tags.get(RUN_ID_TAG, ""),
        created=int(row["creation_timestamp"]) / 1000,
        scores=scores_of(tags),
        mlflow_run=row.get("run_id") or "",
        has_golden="golden" in tags,
    )


def kind_of(reference: str) -> Literal["number", "run", "alias"]:
    """What a reference to a version names."""
    if is_number(reference):
        return "number"
    return "run" if reference[:1].isdigit() else "alias"


def local_file(folder: str, name: str) -> Path | None:
    """A file in a folder that MLflow names as a path or a file:// address; None where it isn't there."""
    place = file_of(folder)
    return place / name if place and (place / name).is_file() else None


def parsed(content: bytes) -> Any:
    """What a run's JSON file holds; None where it is damaged."""
    with suppress(ValueError):
        return json.loads(content)


def gone(name: str, release: Release) -> Failure:
    """What to raise for a version without its model."""
    return Failure(f"{name} version {release.version}", "its file is gone from MLflow; promote another")
