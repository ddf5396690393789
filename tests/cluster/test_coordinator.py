import asyncio
import threading

import pytest

from fmnist.cluster import coordinator
from fmnist.cluster.coordinator import DEATHS, Coordinator, Delivery, Task

DONE = Delivery(0.5, 0.9, 320, 1.0, 1e-3, b"after 1")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "PAUSE", 0.01)


def test_an_epoch_is_wanted_done_and_delivered() -> None:
    async def story() -> None:
        between = Coordinator()
        first, second = (asyncio.create_task(between.next(0)) for _ in range(2))
        await between.begin()
        assert (await between.news())[:4] == (1, 0, None, None)
        assert not first.done()  # nothing is wanted yet
        await between.want(1, b"before 1")
        assert await first == await second == Task(1, b"before 1")
        await between.progress(1, 64)
        assert (await between.news())[:4] == (1, 64, None, None)
        other = asyncio.create_task(between.next(1))  # a worker that is ready before the delivery has arrived
        await between.deliver(1, DONE)
        assert (await between.news()).delivery == DONE
        await asyncio.sleep(0.02)
        assert not other.done()
        await between.want(2, b"after 1")
        assert await other == Task(2, None)  # it has that state

    asyncio.run(story())


def test_workers_that_take_the_place_of_others_get_the_state_that_was_committed() -> None:
    async def story() -> None:
        between = Coordinator()
        await between.begin()
        await between.want(5, b"after 4")
        await between.progress(5, 64)
        await between.begin()
        assert (await between.news())[:4] == (2, 0, None, None)
        assert await between.next(0) == Task(5, b"after 4")
        await between.deliver(4, DONE)  # by one that lagged behind
        assert (await between.news()).delivery is None
        await between.progress(4, 320)
        assert (await between.news()).images == 0
        await between.deliver(5, DONE)
        await between.deliver(5, DONE._replace(loss=9))  # by one that was thought dead
        assert (await between.news()).delivery == DONE

    asyncio.run(story())


def test_workers_that_die_again_and_again_in_an_epoch_are_given_up() -> None:
    async def story() -> None:
        between = Coordinator()
        await between.arrive()
        for epoch in range(1, 2 * DEATHS):  # once in each is no reason
            await between.want(epoch, b"")
            await between.arrive()
        await between.want(99, b"")
        for _ in range(DEATHS - 1):
            await between.arrive()
            assert (await between.news()).failure is None
        waiting = asyncio.create_task(between.next(98))
        await between.lose("SomeError: connection closed")
        await between.arrive()
        failure = (await between.news()).failure
        assert failure == f"they died {DEATHS} times in the same epoch (SomeError: connection closed)"
        assert await between.next(0) is None
        await waiting

    asyncio.run(story())


def test_workers_that_die_before_they_have_begun_are_given_up_too() -> None:
    async def story() -> None:
        between = Coordinator()
        for _ in range(DEATHS + 1):
            assert (await between.news()).failure is None
            await between.arrive()
            await between.lose("OutOfMemoryError: CUDA out of memory")
        assert "CUDA out of memory" in ((await between.news()).failure or "")

    asyncio.run(story())


def test_a_reason_that_any_worker_would_have_ends_the_training_at_once() -> None:
    async def story() -> None:
        between = Coordinator()
        waiting = asyncio.create_task(between.next(0))
        await asyncio.sleep(0)
        await between.fail("model 'x:y': cannot be imported")
        assert await waiting is None
        assert (await between.news()).failure == "model 'x:y': cannot be imported"

    asyncio.run(story())


def test_what_keeps_the_workers_may_raise_or_return_and_blocks_nobody() -> None:
    def raises() -> None:
        raise RuntimeError("Training failed:\n  File x\n\x1b[36mValueError: no place\x1b[39m\n    ^^^^^")

    async def story() -> None:
        for run, reason in ((raises, "RuntimeError: ValueError: no place"), (lambda: None, "the workers have left")):
            between = Coordinator()
            await between.hire(run)
            assert (await between.news()).failure == reason
        between, over = Coordinator(), threading.Event()
        hired = asyncio.create_task(between.hire(lambda: over.wait(60)))
        await between.begin()
        assert (await between.news()).begun == 1
        assert not hired.done()
        over.set()
        await hired

    asyncio.run(story())
