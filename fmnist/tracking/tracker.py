"""Between a training and its journal. A training tells its tracker what is committed, and goes on."""

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from fmnist.errors import Failure
from fmnist.run import Run
from fmnist.tracked import Tracked
from fmnist.tracking.journal import Journal, Record
from fmnist.tracking.records import start_record
from fmnist.tracking.shipper import State


class Tracker(Protocol):
    """Hears of a run what is committed."""

    def commit(self, records: Sequence[Record]) -> None:
        """These records stand, some for longer. The first call, before any epoch, announces the run."""

    def end(self, make_record: Callable[[], Record]) -> None:
        """The run is finished; `make_record` gives its last record where that is not known yet."""


class NullTracker:
    """Tracks nothing."""

    def commit(self, records: Sequence[Record]) -> None: ...
    def end(self, make_record: Callable[[], Record]) -> None: ...


NULL = NullTracker()


class JournalTracker:
    """Appends to the run's journal, and has a shipper follow it."""

    def __init__(
        self,
        run: Tracked,
        start_shipper: Callable[[], "subprocess.Popen[bytes]"],
        notice: Callable[[str], None],
        start: Callable[[], Record] | None = None,
    ) -> None:
        """`start`: gives the journal's first record, where `run` is not a Run."""
        self._start = start or partial(start_record, Run(run.folder))
        self._run, self._journal, self._start_shipper, self._notice = run, Journal(run.journal), start_shipper, notice
        self._shipper: subprocess.Popen[bytes] | None = None
        self._told: set[str] = set()

    def commit(self, records: Sequence[Record]) -> None:
        self._journal.add_missing([self._start(), *records])
        if self._shipper is None:
            with suppress(Failure):  # one that is left over may be at it too; it is for the eye alone
                State(self._run).forget_errors()
            self._shipper = self._start_shipper()
        for lane, error in self._errors().items():
            if lane not in self._told:
                self._told.add(lane)
                self._notice(f"{lane}: {error}; the training goes on, and it is sent later")

    def end(self, make_record: Callable[[], Record]) -> None:
        if not self._journal.has("end"):
            self._journal.add_missing([make_record()])

    def wait(self, seconds: float, tell: Callable[[str, float], None]) -> None:
        """Wait until everything is sent, telling how long still; say what to do where it is not."""
        if self._shipper is None:
            return
        until = time.monotonic() + seconds
        with suppress(KeyboardInterrupt):  # wait no longer; the training is done
            while self._shipper.poll() is None and (left := until - time.monotonic()) > 0:
                tell("sending to MLflow and TensorBoard", left)
                with suppress(subprocess.TimeoutExpired):
                    self._shipper.wait(min(0.5, left))
        code = self._shipper.poll()
        if code != 0:
            self._shipper.terminate()
            try:
                self._shipper.wait(5)
            except subprocess.TimeoutExpired:  # else it would keep out who is told below to send the rest
                self._shipper.kill()
                self._shipper.wait()
            other = "it takes longer" if code is None else f"the shipper ended with {code}; see its shipping.log"
            reasons = "; ".join(f"{lane}: {error}" for lane, error in self._errors().items()) or other
            self._notice(f"{self._run.title}: not all of it has been sent ({reasons}); send the rest with: fmnist sync")

    def _errors(self) -> dict[str, str]:
        return {lane: values["error"] for lane, values in State(self._run).lanes.items() if values["error"]}
