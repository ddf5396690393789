"""What lies about in a workspace and belongs to nothing: it has no run, no version, or its command was killed."""

import shutil
import stat
import time
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from os import stat_result
from pathlib import Path
from typing import NamedTuple

from fmnist.run import RUN_ID
from fmnist.tracking.wiring import Destinations

DAY = 24 * 60 * 60  # seconds
UNBEGUN, LOGS = "run folders that never began", "TensorBoard logs without a run"
FETCHED, SCRATCH = "fetched models of no version", "left by commands that were killed"


class Piece(NamedTuple):
    """Something that may be deleted."""

    kind: str
    name: str
    size: int
    """Bytes."""
    delete: Callable[[], object]
    """May be killed at any moment: what is left is found again. It raises OSError or Failure."""


@dataclass(frozen=True)
class Yard:
    """Where is looked, and what counts as old."""

    home: Path
    destinations: Destinations
    days: int

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    def is_old(self, path: Path, least: int = 0) -> bool:
        """Whether nothing in it changed for so many days, at least `least`. Locks do not count: to look writes them."""
        with suppress(FileNotFoundError):
            times = [about.st_mtime for file, about in _files(path) if not file.name.endswith("lock")]
            return max(times or [path.lstat().st_mtime]) <= time.time() - DAY * max(self.days, least)
        return False


def find_scratch(yard: Yard) -> Iterator[Piece]:
    """Temporary folders. A day is the least: some command may be at work in a younger one."""
    for parent in (yard.home, yard.runs, yard.home / "data", yard.home / "models"):
        for path in parent.glob(".scratch-*"):
            if yard.is_old(path, least=1):
                yield folder_piece(SCRATCH, path)


def find_unbegun(yard: Yard) -> Iterator[Piece]:
    """A run's folder is made, then what was asked for is written: between the two its process was killed."""
    for path in yard.runs.glob("*"):
        is_bare = {file.name for file, _ in _files(path)} <= {".config.json.tmp"}
        if is_bare and RUN_ID.fullmatch(path.name) and yard.is_old(path, least=1):
            yield folder_piece(UNBEGUN, path)


def find_logs(yard: Yard, known: Set[str]) -> Iterator[Piece]:
    """TensorBoard's folders of runs that are not `known`; others are not ours."""
    for path in yard.destinations.logs.glob("*"):
        if RUN_ID.fullmatch(path.name) and path.is_dir() and path.name not in known and yard.is_old(path):
            yield folder_piece(LOGS, path)


def find_fetched(yard: Yard, digests: Set[str]) -> Iterator[Piece]:
    """Models that were fetched from the registry, and that it does not have any more."""
    for path in (yard.home / "models").glob("*.onnx"):
        if path.stem not in digests and yard.is_old(path):
            yield Piece(FETCHED, path.name, weight(path), path.unlink)


def folder_piece(kind: str, path: Path) -> Piece:
    return Piece(kind, path.name, weight(path), partial(shutil.rmtree, path))


def weight(path: Path) -> int:
    """Bytes of the file, or of all in the folder."""
    return sum(about.st_size for _, about in _files(path))


def _files(path: Path) -> Iterator[tuple[Path, stat_result]]:
    """All but folders; some may go meanwhile."""
    for file in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            about = file.lstat()
            if not stat.S_ISDIR(about.st_mode):
                yield file, about
