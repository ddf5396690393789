"""What is trained and tracked: a folder whose name is its id, with a journal and a lock. Runs are, and sweeps."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import TypeAdapter, ValidationError

from fmnist.errors import Failure
from fmnist.files import held_lock, is_locked

T = TypeVar("T")
adapter: Callable[[Any], Any] = cache(TypeAdapter)  # to build one takes longer than to read a run


@dataclass(frozen=True)
class Tracked:
    """Comparable, cheap to make, read from disk when asked."""

    kind: ClassVar[str] = "run"
    verb: ClassVar[str] = "train"
    """The command that makes it."""
    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.kind} {self.id}"

    @property
    def resume_command(self) -> str:
        """What goes on with it."""
        return f"fmnist {self.verb} --resume {self.id}"

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def shipping(self) -> Path:
        """How far each sink has come with the journal."""
        return self.folder / "shipping.json"

    @property
    def is_locked(self) -> bool:
        """Whether a process trains it now."""
        return is_locked(self.folder / "lock")

    @property
    def is_whole(self) -> bool:
        """Whether it is finished, and has all that it ended with."""
        raise NotImplementedError

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold it: nobody else can train it meanwhile. Raises Failure that names the holder."""
        me = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        with held_lock(self.folder / "lock", me) as holder:
            if holder:
                raise Failure(self.title, f"is being trained by {holder}; wait for it, or stop it")
            yield

    def read(self, name: str, kind: type[T]) -> T:
        """A file of the folder as a value. Raises Failure where it cannot be read."""
        path = self.folder / name
        try:
            values: T = adapter(kind).validate_json(path.read_bytes())
            return values
        except OSError as error:
            raise Failure(path, f"cannot be read ({error.strerror}); restore it, or remove the folder") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            raise Failure(
                path,
                f"is not what a {self.kind} writes ({place}: {first['msg']}); restore it, or remove the folder",
            ) from error
