"""Journal -> sinks, in a process of its own, so that a training never waits for a server.

A lane is one sink, fed by a thread of its own: a server that hangs holds up nobody else. How far each lane has come
is kept beside the journal, by the sink's address: another server is another lane and gets everything.
"""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from fmnist.errors import Failure, no_room, one_line
from fmnist.files import held_lock, write_whole
from fmnist.tracked import Tracked
from fmnist.tracking.journal import Journal, Record

POLL = 0.5
LONGEST_PAUSE = 30.0


class Sink(Protocol):
    """Takes records; the first is always the run's start, also when it goes on in the middle."""

    starts_anew: bool
    """Whether a new sink wants all records again, whatever an earlier one had."""

    is_empty: bool
    """After the start is sent: whether the place knew nothing of the run, whatever was sent there before."""

    @property
    def there(self) -> str | None:
        """After the start is sent: what this very place calls the run, a name that it has drawn."""

    def send(self, record: Record) -> None: ...
    def close(self, *, abandoned: bool) -> None:
        """Nothing more comes now. `abandoned`: the training is over, and it never reached its end."""


SinkFactory = Callable[[], Sink]


@dataclass
class State:
    """shipping.json: lane -> how many records it has, what it calls the run, and what went wrong last."""

    run: Tracked
    lanes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        try:
            self.lanes = json.loads(self.run.shipping.read_text())
        except (OSError, ValueError):
            self.lanes = {}  # records may be sent again: nothing is lost by forgetting

    def sent(self, lane: str) -> int:
        return int(self.lanes.get(lane, {}).get("sent", 0))

    def has_all(self, lane: str) -> bool:
        """Whether the lane has got the run's last record."""
        return bool(self.lanes.get(lane, {}).get("ended"))

    def may_seem_trained(self, lane: str) -> bool:
        """Whether it may say of a run that never came to its end that it is being trained."""
        noted = self.lanes.get(lane, {})
        return bool(noted.get("sent")) and not (noted.get("ended") or noted.get("closed"))

    def close(self, lane: str) -> None:
        """It says that nobody trains the run."""
        with self._lock:
            self.lanes[lane]["closed"] = True
            write_whole(self.run.shipping, json.dumps(self.lanes, indent=1))

    def forget_errors(self) -> None:
        """Of earlier tries, maybe at other places."""
        for lane, values in self.lanes.items():
            if values["error"]:
                self.note(lane, values["sent"], None)

    def is_elsewhere(self, lane: str, there: str | None) -> bool:
        """Whether what was sent went to another place, that calls the run otherwise: the folder was copied here."""
        return self.lanes.get(lane, {}).get("there", there) != there

    def forget(self, lanes: Iterable[str]) -> None:
        """What they have: it is sent again."""
        with self._lock:
            self.lanes = {lane: values for lane, values in self.lanes.items() if lane not in set(lanes)}
            write_whole(self.run.shipping, json.dumps(self.lanes, indent=1))

    def note(self, lane: str, sent: int, error: str | None, *, ended: bool = False, there: str | None = None) -> None:
        with self._lock:
            there = there or self.lanes.get(lane, {}).get("there")
            self.lanes[lane] = {"sent": sent, "error": error, "ended": ended, **({"there": there} if there else {})}
            write_whole(self.run.shipping, json.dumps(self.lanes, indent=1))


def is_pending(run: Tracked, lanes: Iterable[str]) -> bool:
    """Whether a lane lacks records of the run, or that nobody trains it. Raises Failure for a damaged journal."""
    state = State(run)
    open_lanes = [lane for lane in lanes if not state.has_all(lane)]
    count = len(Journal(run.journal).read()) if open_lanes else 0  # of most runs the journal need not be read
    is_left = count > 0 and not run.is_locked
    return any(state.sent(lane) < count or (is_left and state.may_seem_trained(lane)) for lane in open_lanes)


def ship(run: Tracked, sinks: Mapping[str, SinkFactory], *, follow: bool, patience: float = 0) -> dict[str, str]:
    """Send what the sinks do not have yet; with `follow`, until the run's training is over, trying again and again,
    and then still for `patience` seconds.

    Gives the errors that are left: lane -> what went wrong. One process ships a run: another that follows it too waits
    its turn (the first may be left over from a trainer that was killed). Without `follow` it is a Failure.
    """
    turn = {"patience": math.inf} if follow else {}
    with held_lock(run.folder / "shipping.lock", f"process {os.getpid()}", **turn) as other:
        if other:
            raise Failure(run.title, f"is being sent by {other} now; wait for it")
        state = State(run)
        lanes = [_Lane(run, name, factory, state, follow, patience if follow else 0) for name, factory in sinks.items()]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
    return {name: values["error"] for name, values in state.lanes.items() if name in sinks and values["error"]}


class _Lane(threading.Thread):
    def __init__(
        self, run: Tracked, name: str, factory: SinkFactory, state: State, follow: bool, patience: float
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._trained, self._factory, self._state, self._follow = run, factory, state, follow
        self._patience = patience
        self._sink: Sink | None = None
        self._journal = Journal(run.journal)

    def run(self) -> None:
        self._follow_training()
        self._close(abandoned=not self._trained.is_locked)

    def _follow_training(self) -> None:
        pause, given_up = POLL, math.inf
        while True:
            training = self._follow and self._trained.is_locked  # asked first: what it wrote last is read below
            if not training and given_up == math.inf:
                given_up = time.monotonic() + self._patience
            try:
                records = self._journal.read()
                self._send(records)
            except Failure as error:  # asks for a person
                return self._note(str(error))
            except Exception as error:  # noqa: BLE001 - a sink may fail in any way, and is tried again
                self._close(abandoned=False)
                self._note(no_room(error) or f"{type(error).__name__}: {one_line(error)[:300]}")
                if time.monotonic() >= given_up:
                    return None
                pause = min(2 * pause, LONGEST_PAUSE if training else 2.0)
            else:
                if not training or (records and records[-1]["key"] == "end"):
                    return None
                pause = POLL
            time.sleep(pause)

    def _close(self, *, abandoned: bool) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            with suppress(Exception):  # it may be the very thing that fails
                sink.close(abandoned=abandoned)
                if abandoned and self._state.may_seem_trained(self.name):
                    self._state.close(self.name)

    def _send(self, records: list[Record]) -> None:
        sent = self._state.sent(self.name)
        if sent >= len(records):
            if self._sink or not records or self._trained.is_locked or not self._state.may_seem_trained(self.name):
                return
            sent = len(records) - 1  # both were killed, who trained it and who sent it
        if self._sink is None:
            self._sink = self._factory()
            if self._sink.starts_anew:
                sent = 0
            elif sent:
                self._sink.send(records[0])
                if self._sink.is_empty or self._state.is_elsewhere(self.name, self._sink.there):
                    sent = 1  # it has lost what it had, or never had it
        for record in records[sent:]:
            self._sink.send(record)
            sent += 1
            self._state.note(self.name, sent, None, ended=record["key"] == "end", there=self._sink.there)

    def _note(self, error: str) -> None:
        with suppress(Failure):  # on a full disk: it is tried again all the same
            self._state.note(self.name, self._state.sent(self.name), error)
