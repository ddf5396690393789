"""Ctrl-C and SIGTERM: one of them ends a command, wherever it is heard."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 5
"""Seconds for saving and saying so, in which a further signal changes nothing."""


class Heard(KeyboardInterrupt):
    """Raised for a signal.

    Not KeyboardInterrupt itself: Python remembers one that left a piece of code (an `exec` in somebody's library) and
    then ends by SIGINT, whatever exit code is asked for.
    """


received: int | None = None
"""The first that came, since `raise_on_signals`."""
_when = 0.0


def exit_on_signals() -> None:
    """End the process at once: while modules are imported. They don't all pass an exception on."""
    for number in ENDING:
        signal.signal(number, _exit)


def raise_on_signals() -> None:
    """Raise KeyboardInterrupt."""
    sys.unraisablehook = _dropped
    for number in ENDING:
        signal.signal(number, _raise)


def _dropped(what: "sys.UnraisableHookArgs") -> None:
    """Python says what a finalizer raises and nobody hears; of a signal, `check_signals` hears all the same."""
    if not isinstance(what.exc_value, Heard):
        sys.__unraisablehook__(what)


@contextmanager
def hangup_counts() -> Iterator[None]:
    """The end of the terminal ends a command as SIGTERM does, unless it was told to outlive it (nohup)."""
    before = signal.getsignal(signal.SIGHUP)

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a shell and the system send one each
        signal.raise_signal(signal.SIGTERM)

    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGHUP) is end:
            signal.signal(signal.SIGHUP, before)


@contextmanager
def importing() -> Iterator[None]:
    """Around the import of a large library: a signal ends the process, where `raise_on_signals` was asked for."""
    handlers = [(number, signal.getsignal(number)) for number in ENDING]
    ours = [(number, handler) for number, handler in handlers if handler is _raise]
    for number, _ in ours:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number, handler in ours:
            signal.signal(number, handler)


def check_signals() -> None:
    """Raise KeyboardInterrupt if a signal came: where whoever ran when it did may have dropped the exception."""
    if received:
        raise Heard


def _exit(number: int, frame: object) -> NoReturn:
    with suppress(OSError):
        os.write(2, b"fmnist: interrupted\n")
    os._exit(128 + number)


def _raise(number: int, frame: object) -> None:
    global received, _when
    if received and time.monotonic() - _when < PATIENCE:
        return
    received, _when = number, time.monotonic()
    raise Heard
