"""What stands between a driver and its workers: an actor that has no Ray in it, and neither trains nor decides.

The driver wants an epoch, from a state; workers ask what is wanted; one of them delivers. Workers that take the place
of dead ones ask as their predecessors did, and get the state that the driver has committed.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

from fmnist.errors import last_words

DEATHS = 4
"""Of workers until an epoch is delivered: then they are given up."""
PAUSE = 0.2
"""Seconds between news, where nothing is delivered."""


class Task(NamedTuple):
    """An epoch, and the state before it, packed; no state for workers that were delivered by themselves."""

    epoch: int
    state: bytes | None


class Delivery(NamedTuple):
    """What an epoch gave: of the whole group, and the state after it."""

    loss: float
    accuracy: float
    images: int
    seconds: float
    rate: float
    state: bytes


class News(NamedTuple):
    begun: int
    """How often a whole group of workers has begun."""
    images: int
    """Of the epoch that is wanted."""
    delivery: Delivery | None
    failure: str | None
    lost: str
    """What the last worker said that was lost; one that is killed says nothing."""


class Coordinator:
    """One training's."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._task: Task | None = None
        self._delivery: Delivery | None = None
        self._failure: str | None = None
        self._lost = "it said nothing"
        self._begun = self._deaths = self._images = 0
        self._has_arrived = False

    async def hire(self, run: Callable[[], object]) -> None:
        """Have `run` keep the workers at work; it returns when they are at their end."""
        try:
            await asyncio.to_thread(run)
        except Exception as error:  # noqa: BLE001 - whatever Ray raises, for the driver to tell
            await self.fail(last_words(error))
        else:
            await self.fail("the workers have left")

    async def want(self, epoch: int, state: bytes) -> None:
        """The driver wants this epoch, from this state."""
        async with self._changed:
            self._task, self._delivery, self._images, self._deaths = Task(epoch, state), None, 0, 0
            self._changed.notify_all()

    async def news(self) -> News:
        """What the driver waits for: at once if there is a delivery or a failure, else after a while."""
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(lambda: self._delivery or self._failure), PAUSE)
            return News(self._begun, self._images, self._delivery, self._failure, self._lost)

    async def arrive(self) -> None:
        """A worker is there, the first of its group. Who came before it in its place has died."""
        self._deaths += self._has_arrived
        self._has_arrived = True
        if self._deaths == DEATHS:
            await self.fail(f"they died {DEATHS} times in the same epoch ({self._lost})")

    async def begin(self) -> None:
        """A whole group of workers is there, each with its model and its images."""
        async with self._changed:
            self._begun, self._images = self._begun + 1, 0

    async def next(self, done: int) -> Task | None:
        """What a worker is to do that comes from the epoch `done` (0: it has no state); None: nothing any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure or (self._is_open and self._task.epoch > done))  # type: ignore[union-attr]
            if self._failure or not self._task:
                return None
            return self._task._replace(state=None) if done and self._task.epoch == done + 1 else self._task

    @property
    def _is_open(self) -> bool:
        return self._task is not None and self._delivery is None

    async def progress(self, epoch: int, images: int) -> None:
        """So many images of the epoch are done."""
        if self._task and self._task.epoch == epoch:
            self._images = images

    async def deliver(self, epoch: int, delivery: Delivery) -> None:
        """An epoch is done."""
        async with self._changed:
            if self._is_open and self._task and self._task.epoch == epoch:
                self._delivery = delivery
                self._changed.notify_all()

    async def lose(self, reason: str) -> None:
        """A worker ends for a reason that another may not have."""
        self._lost = reason

    async def fail(self, reason: str) -> None:
        """For a reason that any worker would have, the training ends."""
        async with self._changed:
            self._failure = self._failure or reason
            self._changed.notify_all()
