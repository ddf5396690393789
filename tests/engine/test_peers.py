from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import pytest
import torch
from torch import Tensor, distributed, nn

from fmnist.data.dataset import Dataset, Split
from fmnist.engine.peers import Alone, Group
from fmnist.engine.plain import Engine
from fmnist.layers import BatchNorm
from fmnist.models import MODELS
from fmnist.recipe import TrainConfig

T = TypeVar("T")
STEADY = TrainConfig(epochs=2, batch_size=64, precision="fp32", dropout=0)
"""Nothing is drawn within the model."""


def together(size: int, config: TrainConfig, act: Callable[[Engine], T]) -> list[T]:
    """What `act` gives to the engine of each of `size` peers, in threads of their own, over gloo."""
    store = distributed.HashStore()
    engines = [Engine(config, 10, "cpu") for _ in range(size)]  # here: first weights take PyTorch's own generator

    def peer(rank: int) -> T:
        group = distributed.ProcessGroupGloo(store, rank, size, timedelta(seconds=60))
        engines[rank].peers = Group(group, rank, size)
        return act(engines[rank])

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(peer, range(size)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def first_gradients(engine: Engine, data: Split) -> dict[str, Tensor]:
    """Those of a first step on all of `data`, batch normalization frozen."""
    engine.model.train()
    for layer in engine.model.modules():
        if isinstance(layer, BatchNorm | nn.BatchNorm2d):
            layer.eval()
    own = engine.peers.part(torch.arange(len(data)))
    engine._train_step(torch.tensor(data.images)[own], torch.tensor(data.labels)[own])
    return {name: parameter.grad for name, parameter in engine.model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize(("size", "count"), [(2, 64), (2, 65), (3, 64)])
def test_the_first_steps_gradients_are_those_of_one_process(
    dataset: Dataset, model: str, size: int, count: int
) -> None:
    config = STEADY.model_copy(update={"model": model})
    data = Split(dataset.train.images[::4][:count], dataset.train.labels[::4][:count])
    expected = first_gradients(Engine(config, 10, "cpu"), data)
    for given in together(size, config, lambda engine: first_gradients(engine, data)):
        assert given.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(given[name], expected[name], atol=1e-5, rtol=1e-5, msg=name)
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-2


def without_norms(classes: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, classes))


def test_epochs_are_those_of_one_process_where_a_model_has_neither_norms_nor_dropout(dataset: Dataset) -> None:
    config = STEADY.model_copy(update={"model": f"{__name__}:without_norms", "batch_size": 50})

    def train(engine: Engine) -> tuple[list[list[float]], dict[str, Tensor]]:
        told = []
        for epoch in (1, 2):
            result = engine.train_epoch(dataset.train, epoch)
            told.append([result.loss, result.accuracy, result.images])
            if isinstance(engine.peers, Group):
                told[-1][:2] = engine.peers.total(told[-1][:2], engine.device)
        return told, engine.state()

    expected, weights = train(Engine(config, 10, "cpu"))
    for told, state in together(2, config, train):
        for own, others in zip(told, expected, strict=True):
            assert own == pytest.approx(others, rel=1e-4)
        for name in weights:
            torch.testing.assert_close(state[name], weights[name], atol=1e-4, rtol=1e-3)


def test_all_end_an_epoch_with_the_same_bits_and_averaged_statistics(dataset: Dataset) -> None:
    config = STEADY.model_copy(update={"dropout": 1})

    def train(engine: Engine) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        engine.train_epoch(dataset.train, 1)
        own = engine.model.norm1.running_mean.clone()  # type: ignore[union-attr, operator]
        engine.peers.average(engine.model.buffers())
        return {name: tensor.clone() for name, tensor in engine.state().items()}, own, engine.model.norm1.running_mean  # type: ignore[return-value]

    (one, mean, averaged), (other, others_mean, _) = together(2, config, train)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(mean, others_mean)
    torch.testing.assert_close(averaged, (mean + others_mean) / 2)


def test_a_machine_that_rounds_otherwise_is_brought_back(dataset: Dataset) -> None:
    def drifted(engine: Engine) -> list[Tensor]:
        engine.train_epoch(Split(dataset.train.images[:128], dataset.train.labels[:128]), 1)
        assert isinstance(engine.peers, Group)
        for tensor in engine.state().values():
            if tensor.is_floating_point():
                tensor.add_(engine.peers.rank)
        engine.peers.align(engine.state())
        return list(engine.state().values())

    one, other = together(2, STEADY, drifted)
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_a_state_that_is_loaded_in_any_order_stays_what_it_is(dataset: Dataset) -> None:
    """A safetensors file gives its tensors in another order in each process."""
    before = Engine(STEADY, 10, "cpu")
    before.train_epoch(Split(dataset.train.images[:128], dataset.train.labels[:128]), 1)
    state = {name: tensor.clone() for name, tensor in before.state().items()}

    def loaded(engine: Engine) -> dict[str, Tensor]:
        assert isinstance(engine.peers, Group)
        engine.load_state(dict(sorted(state.items(), reverse=bool(engine.peers.rank))))
        engine.peers.align(engine.state())
        return engine.state()

    for given in together(2, STEADY, loaded):
        assert given.keys() == state.keys()
        assert all(torch.equal(given[name], state[name]) for name in state)


@pytest.mark.parametrize(("size", "count"), [(2, 64), (3, 64), (5, 11)])
def test_parts_cover_a_batch_and_differ_by_one_image_at_most(size: int, count: int) -> None:
    batch = torch.randperm(count)
    parts = [Group(None, rank, size).part(batch) for rank in range(size)]
    assert torch.equal(torch.cat(parts), batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert Alone().part(batch) is batch


def test_peers_draw_each_their_own_and_see_the_same_order(dataset: Dataset) -> None:
    def drawn(peers: Alone) -> tuple[bytes, bytes, float]:
        engine = Engine(STEADY.model_copy(update={"dropout": 1}), 10, "cpu")
        engine.peers = peers
        with engine._randomness(3) as rng:
            mask = engine.model.dropout1.draw(256)  # type: ignore[union-attr, operator]
            return rng.permutation(100).tobytes(), mask.numpy().tobytes(), float(torch.rand(()))

    orders, masks, torchs = zip(*[drawn(Group(None, rank, 3)) for rank in range(3)], strict=True)
    assert len({*orders, drawn(Alone())[0]}) == 1
    assert len(set(masks)) == len(set(torchs)) == 3


def test_a_rest_too_small_for_all_is_left_out(dataset: Dataset) -> None:
    data = Split(dataset.train.images[:131], dataset.train.labels[:131])

    def images(engine: Engine) -> int:
        return engine.train_epoch(data, 1).images

    assert together(2, STEADY, images) == [128, 128]  # the 3 that are left would be 2 and a lone one
