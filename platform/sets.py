"""A backup set of the platform on disk, in the form of `fmnist/ops/sets.py`: `fmnist backup --verify` reads it too.

<set>/manifest.json   when, of what, by which versions; each file's size and SHA-256; how much of everything there is
      mlflow.dump     MLflow's database, as pg_dump's custom format has it
      artifacts.tar   MLflow's files, unless they are in a bucket of somebody else's
      runs.tar, sweeps.tar, tensorboard.tar, notebooks.tar
      settings.env    .env; and secrets.tar, if they were asked for
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Callable, Iterator

from engine import ROOT, Trouble

FORM = 1
MANIFEST, DUMP, ARTIFACTS = "manifest.json", "mlflow.dump", "artifacts.tar"
FOLDERS = {**{name: ROOT / "var" / name for name in ("runs", "sweeps", "tensorboard")}, "notebooks": ROOT / "notebooks"}
"""What the host keeps itself: name of its archive -> where it is."""
TRACKED = "runs", "sweeps"
"""Those of them whose folders each note how far their records were sent."""
RESERVE = 64 << 20
"""Bytes that stay free on a disk."""
_SEAL = b"fmnist sealed sha256 "
_LOCKS = ("lock", "shipping.lock")
_CHUNK = 1 << 20


class Hashed:
    """A file that is written, with its digest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self.size = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        self._digest.update(content)
        self.size += len(content)
        return self._file.write(content)

    def finish(self) -> list[Any]:
        """[bytes, SHA-256], once it is on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return [self.size, self._digest.hexdigest()]


def sync(path: Path) -> None:
    """Make a file's content, or a folder's entries, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """All of it or nothing, with this mode, whatever the umask."""
    part = path.with_name(f".{path.name}.tmp")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)


def write_manifest(folder: Path, values: dict[str, Any]) -> None:
    content = json.dumps({**values, "form": FORM}, indent=1).encode()
    write_whole(folder / MANIFEST, _SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def verified(folder: Path) -> dict[str, Any]:
    """The manifest of a set of a platform whose every file is the one that was written. Raises Trouble."""
    try:
        seal, _, content = (folder / MANIFEST).read_bytes().partition(b"\n")
    except OSError as error:
        raise Trouble(f"{folder}: is no backup set ({MANIFEST}: {error.strerror}); name one of make backup") from error
    if seal != _SEAL + hashlib.sha256(content).hexdigest().encode():
        raise Trouble(
            f"{folder / MANIFEST}: is damaged: its SHA-256 is not the one it was written with; use another set"
        )
    values = json.loads(content)
    if values.get("form") != FORM:
        raise Trouble(
            f"{folder}: has the form {values.get('form')}, known here is {FORM}; use the checkout that made it"
        )
    if not values.get("platform"):
        raise Trouble(f"{folder}: is a set of the embedded mode; put it back with: fmnist restore {folder}")
    for name, (size, digest) in values["files"].items():
        path = folder / name
        if not path.is_file():
            raise Trouble(f"{path}: is missing from its backup set; use another set")
        if path.stat().st_size != size or _digest(path) != digest:
            raise Trouble(f"{path}: is damaged: it is not the file that was backed up; use another set")
    return dict(values)


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(_CHUNK), b""):
            found.update(piece)
    return found.hexdigest()


def show(folder: Path, manifest: dict[str, Any]) -> None:
    size = sum(size for size, _ in manifest["files"].values())
    print(f"{folder}: whole, {size / 1e6:,.1f} MB, made {manifest['made']}")
    for name, count in manifest["counts"].items():
        print(f"  {name.replace('_', ' '):18} {count:>10,}")


def pack(root: Path, archive: Path, replaced: Callable[[Path], bytes | None] | None = None) -> list[Any]:
    """The folder `root` as a tar file. Gives its size and SHA-256.

    Files may grow meanwhile: what they held when they were opened is kept. Locks, and what is still being written
    under another name, are left out. `replaced`: path -> what is kept in place of its content, if anything.
    """
    with archive.open("wb") as file:
        out = Hashed(file)
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            for path in _members(root):
                with contextlib.suppress(FileNotFoundError):  # it was replaced by another, or deleted, meanwhile
                    _add(tar, path, str(path.relative_to(root)), replaced(path) if replaced else None)
        return out.finish()


def _members(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, onerror=_tell):
        folders[:] = sorted(name for name in folders if not name.startswith(".scratch-"))
        here = Path(folder)
        yield from (here / name for name in folders)
        yield from (here / name for name in sorted(files) if name not in _LOCKS and not name.endswith(".tmp"))


def _tell(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # it was deleted meanwhile
        raise error


def check_links(root: Path) -> None:
    """Raise Trouble for a link whose target `pack` would not have: it may be a run that was moved to another disk."""
    real = root.resolve()
    for link in (path for path in _members(root) if path.is_symlink()):
        if Path(os.readlink(link)).is_absolute() or real not in Path(os.path.realpath(link)).parents:
            told = f"is a link out of {root}, to what no set would hold; put the thing itself there, or delete the link"
            raise Trouble(f"{link}: {told}")


def _add(tar: tarfile.TarFile, path: Path, name: str, content: bytes | None) -> None:
    if path.is_dir() or path.is_symlink():
        tar.add(path, name, recursive=False)
    elif path.is_file():  # nothing else, like a socket, can be kept
        with path.open("rb") as file:
            about, info = os.fstat(file.fileno()), tarfile.TarInfo(name)
            info.mode, info.mtime = about.st_mode & 0o777, int(about.st_mtime)
            info.size = about.st_size if content is None else len(content)
            tar.addfile(info, file if content is None else BytesIO(content))


def unpack(archive: Path, folder: Path) -> None:
    """What `pack` packed, into a new folder, on disk when it returns. Raises Trouble for what would lead out of it."""
    folder.mkdir()
    links, modes = [], []
    with tarfile.open(archive) as tar:
        for info in tar:
            path = folder / info.name
            if info.name.startswith("/") or ".." in Path(info.name).parts:
                raise Trouble(f"{archive}: holds {info.name!r}, which leads out of it; use another set")
            if info.issym():
                links.append((path, info.linkname))
            elif info.isdir():
                path.mkdir(exist_ok=True)
                modes.append((path, info.mode & 0o777))
            elif (content := tar.extractfile(info)) is not None:
                with path.open("wb") as file:
                    shutil.copyfileobj(content, file, _CHUNK)
                    file.flush()
                    os.fsync(file.fileno())
                path.chmod(info.mode & 0o777)
                os.utime(path, (info.mtime, info.mtime))
    for path, target in sorted(links, reverse=True):  # last, inner ones first: nothing is made through them
        path.symlink_to(target)
    for path, mode in modes:
        sync(path)
        path.chmod(mode)
    sync(folder)


def weight(folder: Path) -> int:
    """Bytes of the files in it."""
    found = 0
    for path in _members(folder):
        with contextlib.suppress(FileNotFoundError):
            found += path.lstat().st_size
    return found


def check_room(place: str, free: int, needed: int) -> None:
    """Raise Trouble where it does not fit, before the disk is filled."""
    if free < needed + RESERVE:
        told = f"has {free / 1e6:,.0f} MB free, {(needed + RESERVE) / 1e6:,.0f} are needed"
        raise Trouble(f"{place}: {told}; make room, or choose another place; nothing was changed")
