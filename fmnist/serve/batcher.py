"""Requests that are here at the same time share one call of the model.

Those of few images are answered in the event loop's own thread: another would cost them more than their answer, since
Python's lock has to change hands twice. Many images of one request are split over threads, one a core.
"""

import asyncio
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from fmnist.serve.keeper import Keeper
from fmnist.serve.metrics import BATCH_SIZES, QUEUED
from fmnist.serve.model import Model
from fmnist.serve.web import Refused

FEW = 32
"""Images of one call of the model at most: 3 ms. What it computes then still fits into a core's cache."""
IN_A_ROW = 8
"""Calls of the model before others are read: some 20 ms. With fewer, a crowd is refused rather than answered."""
RETRY = ((b"retry-after", b"1"),)
Images = NDArray[np.uint8]
Rows = NDArray[np.float32]
Answer = tuple[Model, Rows]
Asked = tuple[Images, "asyncio.Future[Answer]"]


class Batcher:
    """Answers images, with the model that is current when it begins with them."""

    def __init__(self, keeper: Keeper, queue: int) -> None:
        """`queue`: images that may wait for the threads at most; of the others the server takes no more requests."""
        self._keeper, self._limit = keeper, queue
        self._waiting: deque[Asked] = deque()
        self._queued = self._many = 0
        QUEUED.set_function(lambda: self._queued)
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "many")

    async def answer(self, images: Images) -> Answer:
        """uint8 [N, 28, 28] -> the model and its probabilities [N, C]. Raises Refused: no model, or too much to do."""
        count = len(images)
        if self._keeper.model is None:
            raise Refused(503, self._keeper.absence, RETRY)
        many = count if count > FEW else 0
        if many and self._many and self._many + many > self._limit:  # who asks for a few is not kept from them
            raise Refused(503, f"{self._many:,} images are waiting already; try again in a second", RETRY)
        loop = asyncio.get_running_loop()
        self._queued += count
        self._many += many
        try:
            if many:
                return await self._split(self._keeper.model, images)
            future: asyncio.Future[Answer] = loop.create_future()
            self._waiting.append((images, future))
            if len(self._waiting) == 1:
                await self._wait_for_others(future)
            return await future
        finally:
            self._queued -= count
            self._many -= many

    async def _wait_for_others(self, own: "asyncio.Future[Answer]") -> None:
        """The first that waits lets the others of this round come, and then has all answered."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            own.cancel()
            own.get_loop().call_soon(self._flush)
            raise
        self._flush()

    async def _split(self, model: Model, images: Images) -> Answer:
        loop = asyncio.get_running_loop()
        parts = (images[start : start + FEW] for start in range(0, len(images), FEW))
        return model, np.concatenate(
            await asyncio.gather(*(loop.run_in_executor(self._threads, self._run, model, part) for part in parts))
        )

    def _flush(self) -> None:
        """Answer those that wait, as many at a time as share a call; what is left then, when others were read."""
        for _ in range(IN_A_ROW):
            if group := self._next_group():
                self._answer(group)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)

    def _answer(self, group: list[Asked]) -> None:
        model = self._keeper.model
        assert model is not None  # once there was one, there is one
        try:
            rows = self._run(model, group[0][0] if len(group) == 1 else np.concatenate([images for images, _ in group]))
        except Exception as error:  # noqa: BLE001 - those who asked are told
            for _, future in group:
                future.set_exception(error)
            return
        start = 0
        for images, future in group:
            end = start + len(images)
            future.set_result((model, rows[start:end]))
            start = end

    def _next_group(self) -> list[Asked]:
        group: list[Asked] = []
        size = 0
        while self._waiting and size + len(self._waiting[0][0]) <= FEW:
            images, future = self._waiting.popleft()
            if not future.done():  # some gave up
                group.append((images, future))
                size += len(images)
        return group

    @staticmethod
    def _run(model: Model, images: Images) -> Rows:
        BATCH_SIZES.observe(len(images))
        return model.predictor.probabilities(images)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
