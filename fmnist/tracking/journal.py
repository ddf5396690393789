"""A run's records on disk, one a line, in the order in which they were committed."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fmnist.errors import Failure
from fmnist.files import sync

Record = dict[str, Any]
"""What happened, as plain JSON values; `key` names it within its run: `start`, `epoch/3`, `end`."""


class Journal:
    """An append-only file: a line is a JSON object with a record and a digest of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Record]:
        """All records. A last line that was torn by a crash does not count; damage before it is a Failure."""
        return [json.loads(text) for text in self._lines()[0]]

    def has(self, key: str) -> bool:
        """Whether the record `key` is there."""
        return any(record["key"] == key for record in self.read())

    def add_missing(self, records: Iterable[Record]) -> None:
        """Append those whose key is not there yet, and make them outlast a power cut. Raises Failure."""
        texts, sound = self._lines()
        known = {json.loads(text)["key"] for text in texts}
        lines = b"".join(_line(record) for record in records if record["key"] not in known)
        if not lines:
            return
        try:
            with self.path.open("ab") as file:
                file.truncate(sound)  # without what a crash left of a last line
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            if not sound:  # a new one
                sync(self.path.parent)
        except OSError as error:
            raise Failure(self.path, f"cannot be written ({error.strerror}); make room, nothing is lost") from error

    def _lines(self) -> tuple[list[str], int]:
        """(the records as JSON texts, the length in bytes up to which the file is sound)."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise Failure(self.path, f"cannot be read ({error.strerror}); mend the disk") from error
        texts, sound = [], 0
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            text = _checked(line)
            if text is None:
                if sound + len(line) == len(content) and not line.endswith(b"\n"):
                    break
                again = ", or remove it and resume the run" if self.path.with_name("checkpoint").exists() else ""
                raise Failure(self.path, f"is damaged in line {number}; restore it{again}")
            texts.append(text)
            sound += len(line)
        return texts, sound


def _line(record: Record) -> bytes:
    text = json.dumps(record, sort_keys=True)
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "record": text}).encode() + b"\n"


def _checked(line: bytes) -> str | None:
    """The record's JSON text in a whole, undamaged line."""
    try:
        values = json.loads(line)
        text: str = values["record"]
        sound = line.endswith(b"\n") and hashlib.sha256(text.encode()).hexdigest() == values["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return text if sound else None
