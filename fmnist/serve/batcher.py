"""Requests that are here at the same time share one call of the model.

A few images are answered in the event loop's own thread, all those at once that came in one round of it: a thread
for them would cost a lone request more than its answer. Many images go to a thread, which leaves the loop free.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from fmnist.serve.keeper import Keeper
from fmnist.serve.metrics import BATCH_SIZES, QUEUED
from fmnist.serve.model import Model
from fmnist.serve.web import Refused

FEW = 32
"""Images that are answered in the loop's thread at once: 2 ms."""
RETRY = ((b"retry-after", b"1"),)
Images = NDArray[np.uint8]
Answer = tuple[Model, NDArray[np.float32]]


class Batcher:
    """Answers images, with the model that is current when it begins with them."""

    def __init__(self, keeper: Keeper, queue: int) -> None:
        """`queue`: images that may wait at most."""
        self._keeper, self._limit = keeper, queue
        self._waiting: list[tuple[Images, asyncio.Future[Answer]]] = []
        self._queued = 0
        self._pool = ThreadPoolExecutor(1, "answers")

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
                return await loop.run_in_executor(self._pool, self._run, images, True)
            future: asyncio.Future[Answer] = loop.create_future()
            if not self._waiting:
                loop.call_soon(self._flush)
            self._waiting.append((images, future))
            return await future
        finally:
            self._queued -= count

    def _flush(self) -> None:
        waiting = [(images, future) for images, future in self._waiting if not future.done()]  # some gave up
        self._waiting = []
        group: list[tuple[Images, asyncio.Future[Answer]]] = []
        size = 0
        for asked in waiting:
            if group and size + len(asked[0]) > FEW:
                self._answer_all(group)
                group, size = [], 0
            group.append(asked)
            size += len(asked[0])
        if group:
            self._answer_all(group)

    def _answer_all(self, asked: list[tuple[Images, asyncio.Future[Answer]]]) -> None:
        try:
            if len(asked) == 1:
                asked[0][1].set_result(self._run(asked[0][0]))
                return
            model, rows = self._run(np.concatenate([images for images, _ in asked]))
        except Exception as error:  # noqa: BLE001 - those who asked are told
            for _, future in asked:
                future.set_exception(error)
            return
        start = 0
        for images, future in asked:
            future.set_result((model, rows[start : start + len(images)]))
            start += len(images)

    def _run(self, images: Images, many: bool = False) -> Answer:
        model = self._keeper.model
        assert model is not None  # once there was one, there is one
        BATCH_SIZES.observe(len(images))
        QUEUED.set(self._queued)
        return model, (model.wide if many else model.narrow).probabilities(images)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
