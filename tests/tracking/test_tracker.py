import subprocess
import sys

from fmnist.run import Run
from fmnist.tracking.journal import Journal, Record
from fmnist.tracking.shipper import State
from fmnist.tracking.tracker import JournalTracker, NullTracker


def process(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_run_is_announced_before_its_first_epoch_and_no_record_is_written_twice(
    own_copy: Run, records: list[Record]
) -> None:
    own_copy.journal.unlink()
    started: list[str] = []
    tracker = JournalTracker(own_copy, lambda: started.append("x") or process(""), print)  # type: ignore[func-returns-value]
    tracker.commit([])
    assert [record["key"] for record in Journal(own_copy.journal).read()] == ["start"]
    tracker.commit(records[1:3])
    tracker.commit(records[1:4])
    tracker.end(lambda: records[4])
    tracker.end(lambda: {"key": "never"})
    assert Journal(own_copy.journal).read() == records
    assert started == ["x"]
    tracker.wait(20, lambda name, left: None)


def test_an_absent_server_is_told_once(own_copy: Run) -> None:
    notices: list[str] = []
    tracker = JournalTracker(own_copy, lambda: process(""), notices.append)
    State(own_copy).note("mlflow http://another", 0, "ConnectionError: of an earlier try")
    tracker.commit([])
    State(own_copy).note("mlflow http://x", 0, "ConnectionError: refused")
    tracker.commit([])
    tracker.commit([])
    assert notices == ["mlflow http://x: ConnectionError: refused; the training goes on, and it is sent later"]
    tracker.wait(20, lambda name, left: None)


def test_the_wait_has_an_end_and_says_what_to_do(own_copy: Run) -> None:
    notices: list[str] = []
    shown: list[tuple[str, float]] = []
    tracker = JournalTracker(own_copy, lambda: process("import time; time.sleep(60)"), notices.append)
    tracker.commit([])
    tracker.wait(0.7, lambda name, left: shown.append((name, left)))
    assert {name for name, _ in shown} == {"sending to MLflow and TensorBoard"}
    left = [seconds for _, seconds in shown]
    assert left[0] <= 0.7 and left == sorted(left, reverse=True) and left[-1] > 0
    (notice,) = notices
    assert (
        notice == f"run {own_copy.id}: not all of it has been sent (it takes longer); send the rest with: fmnist sync"
    )


def test_a_null_tracker_tracks_nothing(own_copy: Run) -> None:
    before = own_copy.journal.read_bytes()
    NullTracker().commit([{"key": "x"}])
    NullTracker().end(lambda: {"key": "y"})
    assert own_copy.journal.read_bytes() == before


def test_ctrl_c_ends_the_wait_and_not_the_story(own_copy: Run) -> None:
    notices: list[str] = []

    def press(name: str, left: float) -> None:
        raise KeyboardInterrupt

    tracker = JournalTracker(own_copy, lambda: process("import time; time.sleep(60)"), notices.append)
    tracker.commit([])
    tracker.wait(60, press)
    assert "send the rest with: fmnist sync" in notices[0]


def test_a_shipper_that_died_is_named(own_copy: Run) -> None:
    notices: list[str] = []
    tracker = JournalTracker(own_copy, lambda: process("raise SystemExit(3)"), notices.append)
    tracker.commit([])
    tracker.wait(60, lambda name, left: None)
    assert "(the shipper ended with 3; see its shipping.log)" in notices[0]
