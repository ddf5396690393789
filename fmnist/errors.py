"""The errors that a user sees, and the one form in which they are told.

`what was given: what is wrong; what to do`, on one line. Bad input is a UserError (exit code 2), a thing that
went wrong on good input is a Failure (exit code 1). Both derive from the built-in error that Python's users
expect, so that `except ValueError` works without this module.
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

_LONGEST = 60
"""Characters of what was given that are shown."""

_FULL = re.compile(
    r"database or disk is full|could not (?:extend|write to) file [^:]*: No space left on device"
    r"|No space left on device|Disk quota exceeded"
)
_COMMAND = re.compile(
    r"(?<![\w/.-])fmnist(?= (?:--help|backup|data|doctor|evaluate|gc|models|predict|promote|restore|rollback"
    r"|runs|serve|sweep|sync|train|up|upgrade)\b)"
)
_DATABASE = re.compile(r"sqlite|psycopg|sqlalche|could not extend file|database or disk")
"""Words of those who speak for a database."""


def one_line(text: object) -> str:
    """`text` on one line, whatever a file name or a library's message holds, without an address's password."""
    return re.sub(r"(?<=://)[^/\s]+@", "…@", " ".join(str(text).split()))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it came from."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def last_words(error: BaseException) -> str:
    """What went wrong, out of a traceback that another process has sent: its last line that says something."""
    lines = [line for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line.strip(" ^~")]
    return one_line(f"{type(error).__name__}: {lines[-1] if lines else ''}")[:300]


def listing(names: Iterable[str]) -> str:
    """The names as a person lists them: 'a, b or c'."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def no_room(error: BaseException) -> str | None:
    """The sentence for an error that comes of a full disk, of whatever library; None for other errors."""
    text = one_line(error)
    found = _FULL.search(text)
    if found is None:
        return None
    if isinstance(error, OSError) and error.filename:
        where = f"the disk of {error.filename2 or error.filename}"  # of a copy, what was to be written
    else:
        where = "the disk of its database" if _DATABASE.search(text) else "its disk"
    return f"{where} is full ({found[0]}); make room there, nothing is lost"


def program() -> str:
    """What to type for `fmnist` here: its path, where it is not on PATH (as under `make train`)."""
    own = Path(sys.argv[0])
    return str(own) if own.name == "fmnist" and not shutil.which("fmnist") else "fmnist"


def as_typed(text: str) -> str:
    """The commands that `text` names, as they are to be typed here."""
    return _COMMAND.sub(lambda found: program(), text)


class UserError(ValueError):
    """Bad input: what was given, what is wrong with it and what to do."""

    exit_code = 2

    def __init__(self, given: object, problem: str) -> None:
        super().__init__(one_line(f"{given}: {problem}"))


class Failure(RuntimeError):
    """Good input, and it went wrong all the same: a full disk, a lock that is held, data out of reach."""

    exit_code = 1

    def __init__(self, given: object, problem: str) -> None:
        super().__init__(one_line(f"{given}: {problem}"))


class Interrupted(KeyboardInterrupt):
    """A training was told to stop; its message says what is saved and how to go on."""


class Stopped(Exception):
    """A KeyboardInterrupt on its way past Typer, which would swallow it with its message."""


def explain(error: Any, name_of: Callable[[str], str]) -> UserError:
    """A pydantic ValidationError -> the first thing wrong, in our form.

    `name_of` tells what the user knows a field as: a flag, a variable.
    """
    first = error.errors()[0]
    limits = first.get("ctx", {})
    problem = {
        "greater_than_equal": "is too small; give at least {ge}",
        "greater_than": "is too small; give more than {gt}",
        "less_than_equal": "is too large; give at most {le}",
        "less_than": "is too large; give less than {lt}",
        "finite_number": "is no finite number; give one",
        "literal_error": "is not known; give {expected}",
        "int_parsing": "is no whole number; give one",
        "int_from_float": "is no whole number; give one",
        "float_parsing": "is no number; give one",
        "bool_parsing": "is neither true nor false; give true, false, yes, no, on, off, 1 or 0",
        "extra_forbidden": "is not known; leave it out",
    }.get(first["type"], first["msg"].removeprefix("Value error, ") + "; mend it")
    if not first["loc"]:  # a check over all fields, which names what was given itself
        return UserError(*first["ctx"]["error"].args)
    given = str(first["input"])
    shown = given if len(given) <= _LONGEST else f"{given[:_LONGEST]}…"
    return UserError(f"{name_of(str(first['loc'][0]))} {shown}", problem.format(**limits))
