import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmnist.serve.batcher import FEW, Batcher
from fmnist.serve.keeper import Keeper
from fmnist.serve.releases import FileSource
from fmnist.serve.web import Refused


@pytest.fixture
def keeper(models: list[Path]) -> Keeper:
    keeper = Keeper(FileSource(models[0]), None)
    keeper.look()
    return keeper


def counted(batcher: Batcher) -> list[int]:
    """The sizes of what the model is asked at once, as it goes on."""
    sizes: list[int] = []
    run = batcher._run

    def counting(model: Any, images: Any) -> Any:
        sizes.append(len(images))
        return run(model, images)

    batcher._run = counting  # type: ignore[method-assign]
    return sizes


def test_requests_of_the_same_moment_share_a_call_and_each_gets_its_own(keeper: Keeper, dataset: Any) -> None:
    images = dataset.test.images
    parts = [images[0:1], images[1:4], images[4:5], images[5:25], images[25:45]]
    assert keeper.model is not None
    expected = [keeper.model.predictor.probabilities(part) for part in parts]
    batcher = Batcher(keeper, 1000)
    sizes = counted(batcher)

    async def together() -> list[Any]:
        return await asyncio.gather(*(batcher.answer(part) for part in parts))

    for (model, rows), wanted in zip(asyncio.run(together()), expected, strict=True):
        np.testing.assert_allclose(rows, wanted, atol=1e-5)
        assert model is keeper.model
    assert sizes == [25, 20]


def test_many_images_are_split_over_threads(keeper: Keeper, dataset: Any) -> None:
    images = np.concatenate([dataset.test.images[:FEW], dataset.test.images[:FEW]])
    assert keeper.model is not None
    batcher = Batcher(keeper, 1000)
    sizes = counted(batcher)
    _, rows = asyncio.run(batcher.answer(images))
    np.testing.assert_allclose(rows, keeper.model.predictor.probabilities(images), atol=1e-5)
    assert sizes == [FEW, FEW]
    batcher.close()


def test_past_its_queue_it_refuses_at_once_and_takes_more_later(keeper: Keeper, dataset: Any) -> None:
    batcher = Batcher(keeper, 2 * FEW)
    images = dataset.test.images[: FEW + 1]

    async def three() -> list[Any]:
        asked = [*(batcher.answer(images) for _ in range(3)), batcher.answer(images[:FEW])]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third, few = asyncio.run(three())
    assert (len(first[1]), len(few[1])) == (FEW + 1, FEW)  # many keep nobody from a few
    for refused in (second, third):
        assert isinstance(refused, Refused)
        assert refused.status == 503
        assert (b"retry-after", b"1") in refused.headers
    assert len(asyncio.run(batcher.answer(images))[1]) == FEW + 1


def test_a_lone_request_larger_than_the_queue_is_answered(keeper: Keeper, dataset: Any) -> None:
    batcher = Batcher(keeper, 10)
    assert len(asyncio.run(batcher.answer(dataset.test.images[:40]))[1]) == 40


def test_who_gave_up_is_left_out_and_frees_the_queue(keeper: Keeper, dataset: Any) -> None:
    batcher = Batcher(keeper, 10)
    sizes = counted(batcher)

    async def one_gives_up() -> Any:
        tasks = [asyncio.create_task(batcher.answer(dataset.test.images[:count])) for count in (4, 5)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second = asyncio.run(one_gives_up())
    assert isinstance(first, asyncio.CancelledError)
    assert len(second[1]) == 5
    assert sizes == [5]
    assert batcher._queued == 0


def test_an_error_of_the_model_reaches_all_who_asked_and_nobody_else(keeper: Keeper, dataset: Any) -> None:
    batcher = Batcher(keeper, 100)
    run = batcher._run

    def broken(model: Any, images: Any) -> Any:
        raise RuntimeError("out of memory")

    async def two() -> list[Any]:
        asked = (batcher.answer(dataset.test.images[:1]) for _ in range(2))
        return await asyncio.gather(*asked, return_exceptions=True)

    batcher._run = broken  # type: ignore[method-assign]
    assert [str(error) for error in asyncio.run(two())] == ["out of memory"] * 2
    batcher._run = run  # type: ignore[method-assign]
    assert all(len(rows) == 1 for _, rows in asyncio.run(two()))
