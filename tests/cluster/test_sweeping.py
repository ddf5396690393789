"""What a sweep does with what its cluster gives it, without a cluster: Tune and the desk are stand-ins."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from fmnist.cluster import sweeping, tuning
from fmnist.cluster.connection import Cluster
from fmnist.cluster.desk import Desk
from fmnist.cluster.sweeping import run_sweep
from fmnist.cluster.trial import end_record
from fmnist.errors import Failure
from fmnist.sweep import Sweep
from fmnist.tracking.journal import Journal

from ..sweeps import a_sweep

pytestmark = pytest.mark.filterwarnings("ignore")


class Quiet:
    """A board that nobody looks at."""

    def begin(self, *what: object) -> None: ...
    def ended(self, trial: object) -> None: ...


class Answer:
    """What a method of an actor gives when it is called from elsewhere."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.remote = method


class NearDesk:
    """The desk, without an actor around it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def __getattr__(self, name: str) -> Answer:
        return Answer(getattr(self.desk, name))


@pytest.mark.parametrize(("address", "least"), [("a:1", 1), (None, 8)])
def test_trials_may_be_more_than_the_processors_of_a_cluster_that_grows(
    monkeypatch: pytest.MonkeyPatch, address: str | None, least: int
) -> None:
    told, asked = list[str](), list[int]()

    def connected(address: str | None, cpus: int, *_: object) -> Any:
        asked.append(cpus)
        return nullcontext(Cluster(address, 4 if address else 8, 0, "node"))

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(sweeping, "connected", connected)
    with sweeping.joined(address, 8, told.append) as cluster:
        assert (cluster.cpus, asked) == (8, [least])
    assert told == ["4 processors are there, 8 are asked for: others are used when they come"] * bool(address)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """All trials are over but the fifth, of which two epochs are kept."""
    sweep, records = a_sweep(tmp_path)
    Journal(sweep.journal).add_missing(records)
    return sweep


@pytest.fixture
def go_on(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Go on with it, where Tune does in turn what is given."""
    import ray

    desk = Desk({})
    monkeypatch.setattr("fmnist.cluster.desk.open_desk", lambda node, kept: NearDesk(desk))
    monkeypatch.setattr(desk, "make_folder", lambda: str(tmp_path))
    monkeypatch.setattr(desk, "clean", lambda: None)
    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer)

    def run(*turns: Callable[[Desk], None], commit: Callable[[Sequence[Any]], None] | None = None) -> Any:
        left: Iterator[Callable[[Desk], None]] = iter(turns)

        class Tuner:
            def fit(self) -> None:
                next(left)(desk)

        monkeypatch.setattr(tuning, "make_tuner", lambda *given: Tuner())
        cluster, board = Cluster(None, 2, 0, "node"), Quiet()
        commit = commit or Journal(sweep.journal).add_missing
        return run_sweep(sweep, None, commit, board, cluster)  # type: ignore[arg-type]

    return run


def end(desk: Desk) -> None:
    desk.send(5, end_record(5, 2, "stopped"))


def lack_memory(desk: Desk) -> None:
    import ray

    raise RuntimeError("Caught unexpected exception") from ray.exceptions.OutOfMemoryError("it was killed")


def break_down(desk: Desk) -> None:
    raise RuntimeError("a traceback\n  of many lines\nValueError: at last")


def keys(sweep: Sweep) -> list[str]:
    return [record["key"] for record in Journal(sweep.journal).read()]


def test_it_ends_when_all_trials_are_over(sweep: Sweep, go_on: Callable[..., Any]) -> None:
    assert len(go_on(end)) == 5
    assert keys(sweep)[-2:] == ["trial/005/end", "end"]


def test_a_worker_that_took_too_much_memory_costs_no_sweep(sweep: Sweep, go_on: Callable[..., Any]) -> None:
    go_on(lack_memory, lack_memory, end)
    assert keys(sweep)[-1] == "end"


def test_memory_that_is_always_short_ends_it(sweep: Sweep, go_on: Callable[..., Any]) -> None:
    with pytest.raises(Failure, match=r"the cluster failed .*; what is over is kept, go on with: fmnist sweep"):
        go_on(*[lack_memory] * tuning.TRIES)


def test_what_broke_it_is_told_by_its_last_words(sweep: Sweep, go_on: Callable[..., Any]) -> None:
    with pytest.raises(Failure, match=r"the cluster failed \(RuntimeError: ValueError: at last\); what is over"):
        go_on(break_down)


def test_a_trial_that_tune_has_lost_is_no_end(sweep: Sweep, go_on: Callable[..., Any]) -> None:
    told = f"sweep {sweep.id}: 1 of its trials were lost; go on with: fmnist sweep --resume {sweep.id}"
    with pytest.raises(Failure, match=told):
        go_on(*[lambda desk: None] * tuning.TRIES)
    assert "end" not in keys(sweep) and not sweep.is_whole
    assert len(go_on(lambda desk: None, end)) == 5


def test_a_full_disk_tells_how_to_go_on(sweep: Sweep, go_on: Callable[..., Any]) -> None:
    def full(records: Sequence[Any]) -> None:
        if records:
            raise Failure(sweep.journal, "cannot be written; make room")

    with pytest.raises(Failure, match=f"make room; go on with: fmnist sweep --resume {sweep.id}"):
        go_on(end, commit=full)
