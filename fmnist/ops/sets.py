"""A backup set on disk: a folder with an archive of each part, and a sealed manifest that tells what belongs to it.

<set>/manifest.json   when, of what, by which versions; each file's size and SHA-256; how much of everything there is
      mlflow.db       MLflow's database, where it is SQLite
      runs.tar, sweeps.tar, artifacts.tar, tensorboard.tar, notebooks.tar

The platform's sets have the same form (`platform/sets.py`), with Postgres's dump as their database.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from fmnist.errors import Failure, UserError
from fmnist.files import read_sealed, sha256_of, sync_tree, write_sealed

FORM = 1
MANIFEST = "manifest.json"
DATABASE = "mlflow.db"
IN_HOME = ("runs", "sweeps", "artifacts", "tensorboard")
"""Folders of a workspace that are kept; the rest of it is made again when it is missed."""
TRACKED = ("runs", "sweeps")
"""Those of them whose folders each note how far their records were sent."""
NOTEBOOKS = "notebooks"
LOCKS = ("lock", "shipping.lock")


@dataclass(frozen=True)
class Manifest:
    """What a set holds."""

    made: str
    """ISO 8601, UTC."""
    home: str
    """The workspace that it is of: MLflow's database names files by their whole path."""
    versions: dict[str, str]
    counts: dict[str, int]
    """Rows of the database's tables, and runs with a folder."""
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Name -> (bytes, SHA-256)."""
    form: int = FORM
    platform: dict[str, str | int] | None = None
    """What only the platform's own restore needs to know of a set of its own."""

    @property
    def size(self) -> int:
        return sum(size for size, _ in self.files.values())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_sealed(folder / MANIFEST, json.dumps(asdict(manifest), indent=1).encode())


def verified(folder: Path) -> Manifest:
    """The manifest of a set whose every file is the one that was written. Raises UserError or Failure."""
    try:
        values = json.loads(read_sealed(folder / MANIFEST))
    except FileNotFoundError as error:
        raise UserError(
            folder, f"is no backup set (it has no {MANIFEST}); name a folder that fmnist backup made"
        ) from error
    except OSError as error:
        raise UserError(folder, f"cannot be read ({error.strerror}); name a folder that fmnist backup made") from error
    if values.get("form") != FORM:
        raise UserError(
            folder, f"has the form {values.get('form')}, known here is {FORM}; install the fmnist that made it"
        )
    manifest = Manifest(**values)
    for name, (size, digest) in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise Failure(path, "is missing from its backup set; use another set")
        if path.stat().st_size != size or sha256_of(path) != digest:
            raise Failure(path, "is damaged: it is not the file that was backed up; use another set")
    return manifest


class _Hashed:
    """A file that is written, with its digest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self.size = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        self._digest.update(content)
        self.size += len(content)
        return self._file.write(content)

    @property
    def facts(self) -> tuple[int, str]:
        return self.size, self._digest.hexdigest()


def pack(root: Path, archive: Path, replaced: Callable[[Path], bytes | None] | None = None) -> tuple[int, str]:
    """The folder `root` as a tar file. Gives its size and SHA-256.

    Files may grow meanwhile: what they held when they were opened is kept. Locks, and what is still being written
    under another name, are left out. `replaced`: path -> what is kept in place of its content, if anything.
    """
    with archive.open("wb") as file:
        out = _Hashed(file)
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            for path in _members(root):
                _add(tar, path, str(path.relative_to(root)), replaced(path) if replaced else None)
        file.flush()
        os.fsync(file.fileno())
    return out.facts


def _members(root: Path) -> Iterable[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".scratch-"))
        here = Path(folder)
        yield from (here / name for name in folders)
        yield from (here / name for name in sorted(files) if name not in LOCKS and not name.endswith(".tmp"))


def _add(tar: tarfile.TarFile, path: Path, name: str, content: bytes | None) -> None:
    try:
        if path.is_dir() or path.is_symlink():
            tar.add(path, name, recursive=False)
            return
        with path.open("rb") as file:
            info = tar.gettarinfo(arcname=name, fileobj=file)
            if content is not None:
                info.size = len(content)
            info.uname = info.gname = ""
            tar.addfile(info, io.BytesIO(content) if content is not None else file)
    except FileNotFoundError:
        return  # it was replaced by another, or deleted, meanwhile


def check_links(root: Path) -> None:
    """Raise Failure for a link whose target `pack` would not have: it may be a run that was moved to another disk."""
    real = root.resolve()
    for link in (path for path in _members(root) if path.is_symlink()):
        if link.readlink().is_absolute() or not Path(os.path.realpath(link)).is_relative_to(real):
            told = f"is a link out of {root}, to what no set would hold; put the thing itself there, or delete the link"
            raise Failure(link, told)


def unpack(archive: Path, folder: Path) -> None:
    """What `pack` packed, into a new folder, on disk when it returns. Raises Failure for what would lead out of it."""
    folder.mkdir()
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise Failure(archive, f"holds what would lead out of {folder.name} ({error}); use another set") from error
    sync_tree(folder)
