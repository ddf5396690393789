"""Files that are written whole or not at all, and that tell when they were damaged."""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlparse

from fmnist.errors import Failure, UserError

_DIGEST_LENGTH = 64
_DAY = 24 * 60 * 60  # seconds
_SEAL = b"fmnist sealed sha256 "
LOOKS = 60.0
"""Seconds for which those who only look at a lock may keep its next owner out: who stopped there would for ever."""
_LOOK = 0.2
"""Seconds for which a lock may seem held because somebody looks whether it is."""


def sha256_of(path: Path) -> str:
    """The file's SHA-256, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_of(address: str) -> Path | None:
    """Where a file:// address leads, or a path; None for addresses of another kind."""
    parts = urlparse(address)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") and parts.path else None


def sync(path: Path) -> None:
    """Make a file's content, or a folder's entries (a rename in it), outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` a folder with all that is in it, and its place. Links are left."""
    for path in (*folder.rglob("*"), folder, folder.parent):
        if not path.is_symlink():
            sync(path)


def write_whole(path: Path, content: bytes | str, mode: int = 0o666) -> None:
    """Replace `path` by `content` in one step: whoever looks, also after a crash, sees the old or the new.

    `mode`: who may read and write it, less the umask; it holds before the first byte is there.
    Raises Failure when it cannot be written; the old content then stands.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except BaseException as error:  # Ctrl-C too must leave nothing half written
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or error
        raise Failure(
            path, f"cannot be written ({reason}); make room or mend the folder, what it held stands"
        ) from error


def sealed(content: bytes) -> bytes:
    """`content` with a digest in front, so that `unsealed` notices any damage."""
    return _SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def unsealed(raw: bytes, name: object) -> bytes:
    """What `sealed` was given. Raises Failure, which calls it `name`, when a bit of it has changed."""
    content = raw[len(_SEAL) + _DIGEST_LENGTH + 1 :]
    if raw != sealed(content):
        raise Failure(name, "is damaged: its SHA-256 is not the one it was written with; restore it or start anew")
    return content


def write_sealed(path: Path, content: bytes) -> None:
    """`write_whole` of the sealed content."""
    write_whole(path, sealed(content))


def read_sealed(path: Path) -> bytes:
    """The content that `write_sealed` wrote. Raises Failure when a bit of it has changed."""
    return unsealed(path.read_bytes(), path)


def make_folder(path: Path) -> Path:
    """The folder, made where it is missing, to outlast a power cut. Raises UserError when it cannot be."""
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for made in missing:
            sync(made.parent)
    except OSError as error:
        raise UserError(path, f"cannot be made a folder ({error.strerror}); choose another place") from error
    return path


def left_scratch(parent: Path) -> list[Path]:
    """The temporary folders in `parent` of processes that were killed more than a day ago."""
    left = []
    for folder in parent.glob(".scratch-*"):
        with suppress(FileNotFoundError):  # its own process may be removing it now
            if time.time() - folder.stat().st_mtime > _DAY:
                left.append(folder)
    return left


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent`, removed at the end with all that is still in it."""
    for left in left_scratch(make_folder(parent)):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=".scratch-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def held_lock(path: Path, holder: str, *, patience: float = _LOOK) -> Iterator[str | None]:
    """Hold the lock file at `path`, with `holder` written in it.

    Gives None, or where another process holds it for longer than `patience` seconds, who that is. The system frees it
    when its process ends, however.
    """
    with path.open("a+") as file:
        if not _acquired(file.fileno(), patience):
            file.seek(0)
            yield file.read().strip() or "another process"
            return
        with suppress(OSError):  # on a full disk it is held, by a holder without a name
            file.truncate(0)
            os.write(file.fileno(), holder.encode())
        yield None


def _acquired(descriptor: int, patience: float) -> bool:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            late = time.monotonic() - until
            if late > LOOKS or (late > 0 and not _is_only_looked_at(descriptor)):
                return False
            time.sleep(min(patience / 20, 0.5))  # who waits for hours need not look a hundred times a second


def _is_only_looked_at(descriptor: int) -> bool:
    """Whether nobody holds it: who looks (below) shares it, for a moment that a busy machine may draw out."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file at `path` now."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
