"""Requests that are here at the same time share one call of the model.

A lone request is answered in the event loop's own thread: another would cost it more than its answer. Several that
wait go to a thread together, so that the loop reads and writes others meanwhile; many images of one request go to
another thread, with all cores.
"""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from fmnist.serve.keeper import Keeper
from fmnist.serve.metrics import BATCH_SIZES, QUEUED
from fmnist.serve.model import Model
from fmnist.serve.web import Refused

FEW = 32
"""Images that share a call: 2 ms. A request with more has its own."""
RETRY = ((b"retry-after", b"1"),)
Images = NDArray[np.uint8]
Answer = tuple[Model, NDArray[np.float32]]
Asked = tuple[Images, "asyncio.Future[Answer]"]


class Batcher:
    """Answers images, with the model that is current when it begins with them."""

    def __init__(self, keeper: Keeper, queue: int) -> None:
        """`queue`: images that may wait at most."""
        self._keeper, self._limit = keeper, queue
        self._waiting: deque[Asked] = deque()
        self._busy = False
        """Whether the thread answers some now."""
        self._queued = 0
        QUEUED.set_function(lambda: self._queued)
        self._few, self._many = ThreadPoolExecutor(1, "few"), ThreadPoolExecutor(1, "many")

    async def answer(self, images: Images) -> Answer:
        """uint8 [N, 28, 28] -> the model and its probabilities [N, C]. Raises Refused: no model, or too much to do."""
        count = len(images)
        if self._keeper.model is None:
            raise Refused(503, self._keeper.absence, RETRY)
        if self._queued and self._queued + count > self._limit:
            raise Refused(503, f"{self._queued:,} images are waiting already; try again in a second", RETRY)
        loop = asyncio.get_running_loop()
        self._queued += count
        try:
            if count > FEW:
                return await loop.run_in_executor(self._many, self._run, images, True)
            future: asyncio.Future[Answer] = loop.create_future()
            if not self._waiting:
                loop.call_soon(self._flush)
            self._waiting.append((images, future))
            return await future
        finally:
            self._queued -= count

    def _flush(self) -> None:
        """Begin with those that wait, unless the thread is at some: it goes on with these when it has done."""
        while not self._busy and (group := self._next_group()):
            if len(group) == 1:
                self._finish(group, self._outcome(group))
            else:
                self._hand_over(group)

    def _next_group(self) -> list[Asked]:
        """As many of those that wait as are answered at once."""
        group: list[Asked] = []
        size = 0
        while self._waiting and size + len(self._waiting[0][0]) <= FEW:
            images, future = self._waiting.popleft()
            if not future.done():  # some gave up
                group.append((images, future))
                size += len(images)
        return group

    def _hand_over(self, group: list[Asked]) -> None:
        self._busy = True
        self._few.submit(self._in_thread, group, asyncio.get_running_loop())

    def _in_thread(self, group: list[Asked], loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(self._done, group, self._outcome(group))

    def _done(self, group: list[Asked], outcome: Answer | Exception) -> None:
        self._busy = False
        if following := self._next_group():  # first, so that the thread works while this one sends answers
            self._hand_over(following)
        self._finish(group, outcome)

    def _outcome(self, group: list[Asked]) -> Answer | Exception:
        try:
            return self._run(group[0][0] if len(group) == 1 else np.concatenate([images for images, _ in group]))
        except Exception as error:  # noqa: BLE001 - those who asked are told
            return error

    @staticmethod
    def _finish(group: list[Asked], outcome: Answer | Exception) -> None:
        start = 0
        for images, future in group:
            end = start + len(images)
            if future.done():  # it gave up
                pass
            elif isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result((outcome[0], outcome[1][start:end]))
            start = end

    def _run(self, images: Images, many: bool = False) -> Answer:
        model = self._keeper.model
        assert model is not None  # once there was one, there is one
        BATCH_SIZES.observe(len(images))
        return model, (model.wide if many else model.narrow).probabilities(images)

    def close(self) -> None:
        for pool in (self._few, self._many):
            pool.shutdown(wait=False, cancel_futures=True)
