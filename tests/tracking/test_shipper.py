import json
import shutil
import threading
import time
from collections.abc import Callable

import pytest

from fmnist.errors import Failure
from fmnist.files import held_lock
from fmnist.run import Run
from fmnist.tracking import shipper
from fmnist.tracking.journal import Journal, Record
from fmnist.tracking.shipper import State, is_pending, ship

from ..helpers import until


class Heap:
    """A sink that keeps what it gets, and fails when it is told to."""

    def __init__(self, starts_anew: bool = False, failures: int = 0, error: Exception | None = None) -> None:
        self.starts_anew = starts_anew
        self.keys: list[str] = []
        self.is_empty = False
        self.there: str | None = None
        self.closed: list[bool] = []
        self.failures, self.error = failures, error or ConnectionError("no\nserver")

    def send(self, record: Record) -> None:
        if self.failures > 0 and record["key"] == "epoch/2":
            self.failures -= 1
            raise self.error
        self.keys.append(record["key"])

    def close(self, *, abandoned: bool) -> None:
        self.closed.append(abandoned)


ALL = ["start", "epoch/1", "epoch/2", "epoch/3", "end"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "POLL", 0.02)


def test_everything_is_sent_once_and_a_second_time_nothing(own_copy: Run, journalled: Run) -> None:
    heap = Heap()
    assert is_pending(own_copy, ["heap"])
    assert ship(own_copy, {"heap": lambda: heap}, follow=False) == {}
    assert ship(own_copy, {"heap": lambda: pytest.fail("opened again")}, follow=True) == {}
    assert heap.keys == ALL
    assert not is_pending(own_copy, ["heap"])
    own_copy.journal.write_bytes(b"it is not read any more")
    assert not is_pending(own_copy, ["heap"])
    shutil.copy(journalled.journal, own_copy.journal)
    assert is_pending(own_copy, ["heap", "another"])


@pytest.mark.parametrize(("starts_anew", "then"), [(False, ["start", *ALL[2:]]), (True, ALL)])
def test_what_was_left_is_sent_later(own_copy: Run, starts_anew: bool, then: list[str]) -> None:
    broken, whole, other = Heap(failures=99), Heap(starts_anew), Heap()
    sinks = {"heap": lambda: broken, "other": lambda: other}
    assert ship(own_copy, sinks, follow=False) == {"heap": "ConnectionError: no server"}
    assert (broken.keys, other.keys) == (ALL[:2], ALL)  # one that fails holds up nobody else
    assert ship(own_copy, {"heap": lambda: whole}, follow=False) == {}
    assert whole.keys == then


def that_fail_thrice() -> tuple[list[Heap], Callable[[], Heap]]:
    """(the sinks that were opened, what opens another): the first three fail."""
    opened: list[Heap] = []

    def factory() -> Heap:
        opened.append(Heap(failures=3 - len(opened)))
        return opened[-1]

    return opened, factory


def test_while_the_training_goes_on_it_tries_again(own_copy: Run) -> None:
    opened, factory = that_fail_thrice()
    with own_copy.lock():
        assert ship(own_copy, {"heap": factory}, follow=True) == {}
    assert len(opened) == 4
    assert opened[-1].keys == ["start", *ALL[2:]]


def follow(run: Run, sink: Heap) -> threading.Thread:
    thread = threading.Thread(target=ship, args=(run, {"heap": lambda: sink}), kwargs={"follow": True})
    thread.start()
    return thread


def test_it_follows_a_training_to_its_end_and_to_its_death(own_copy: Run, records: list[Record]) -> None:
    own_copy.journal.unlink()
    journal, sink = Journal(own_copy.journal), Heap()
    with own_copy.lock():
        thread = follow(own_copy, sink)
        for count in (1, 2, 4):
            journal.add_missing(records[:count])
            until(lambda count=count: len(sink.keys) == count)  # type: ignore[misc]
        assert thread.is_alive()
    thread.join(20)  # the training's process is gone, and with it its lock
    assert not thread.is_alive()
    assert sink.keys == ALL[:4]


def test_what_asks_for_a_person_is_not_tried_again(own_copy: Run) -> None:
    sink = Heap(failures=99, error=Failure("experiment 'x'", "was deleted; restore it"))
    with own_copy.lock():
        errors = ship(own_copy, {"heap": lambda: sink}, follow=True)
    assert errors == {"heap": "experiment 'x': was deleted; restore it"}
    assert sink.failures == 98


def test_one_process_ships_a_run(own_copy: Run) -> None:
    with held_lock(own_copy.folder / "shipping.lock", "me"):
        with pytest.raises(Failure, match=f"run {own_copy.id}: is being sent by me now; wait for it"):
            ship(own_copy, {"heap": lambda: pytest.fail("shipped twice")}, follow=False)
        second = follow(own_copy, sink := Heap())
        time.sleep(0.5)
        assert sink.keys == []
    second.join(20)
    assert sink.keys == ALL


def test_a_damaged_journal_is_told_and_nothing_of_it_is_sent(own_copy: Run) -> None:
    raw = bytearray(own_copy.journal.read_bytes())
    raw[len(raw) // 3] ^= 1
    own_copy.journal.write_bytes(raw)
    sink = Heap()
    (error,) = ship(own_copy, {"heap": lambda: sink}, follow=False).values()
    assert "journal.jsonl: is damaged in line" in error
    assert sink.keys == []


def test_a_lost_state_means_sending_again(own_copy: Run) -> None:
    ship(own_copy, {"heap": Heap}, follow=False)
    assert json.loads(own_copy.shipping.read_text()) == {"heap": {"sent": 5, "error": None, "ended": True}}
    own_copy.shipping.write_text("{")
    assert State(own_copy).sent("heap") == 0


def test_a_place_that_has_lost_the_run_gets_it_all_again(own_copy: Run) -> None:
    first = Heap(failures=1)
    assert ship(own_copy, {"heap": lambda: first}, follow=False)
    later = Heap()
    later.is_empty = True
    assert ship(own_copy, {"heap": lambda: later}, follow=False) == {}
    assert later.keys == ALL


def test_a_place_that_calls_the_run_otherwise_is_another_and_gets_it_all(own_copy: Run) -> None:
    first, same, other = Heap(failures=1), Heap(failures=1), Heap()
    first.there = same.there = "7"
    other.there = "8"
    for sink, keys in ((first, ALL[:2]), (same, ["start"]), (other, ALL)):
        ship(own_copy, {"heap": lambda sink=sink: sink}, follow=False)  # type: ignore[misc]
        assert sink.keys == keys
    assert State(own_copy).lanes["heap"] == {"sent": 5, "error": None, "ended": True, "there": "8"}


def test_after_the_training_it_tries_for_a_while(own_copy: Run) -> None:
    opened, factory = that_fail_thrice()
    assert ship(own_copy, {"heap": factory}, follow=True, patience=30) == {}
    assert opened[-1].keys == ["start", *ALL[2:]]
    assert [sink.closed for sink in opened] == [[False], [False], [False], [True]]


def test_a_state_that_cannot_be_written_is_no_crash(
    own_copy: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(self: State, lane: str, sent: int, error: str | None, **more: object) -> None:
        raise Failure("shipping.json", "cannot be written (No space left on device)")

    monkeypatch.setattr(State, "note", full)
    ship(own_copy, {"heap": Heap}, follow=False)
    assert "Traceback" not in capfd.readouterr().err


def test_a_run_whose_trainer_and_shipper_were_killed_is_not_left_as_trained(
    own_copy: Run, records: list[Record]
) -> None:
    own_copy.journal.unlink()
    Journal(own_copy.journal).add_missing(records[:3])
    State(own_copy).note("heap", 3, None, there="7")
    with own_copy.lock():
        assert not is_pending(own_copy, ["heap"])
    assert is_pending(own_copy, ["heap"])
    sink = Heap()
    sink.there = "7"
    assert ship(own_copy, {"heap": lambda: sink}, follow=False) == {}
    assert sink.keys == ["start", "epoch/2"]  # it ended with its last epoch
    assert sink.closed == [True]
    assert not is_pending(own_copy, ["heap"])
    Journal(own_copy.journal).add_missing(records[:4])  # it goes on
    assert is_pending(own_copy, ["heap"])
