import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fmnist.data.dataset import Dataset, Split
from fmnist.engine import fast
from fmnist.engine.fast import FastEngine, make_engine, training_logits
from fmnist.engine.plain import Engine
from fmnist.layers import seed_dropout
from fmnist.models import Cnn
from fmnist.recipe import ORIGINAL, TrainConfig

SMALL = TrainConfig(epochs=2, batch_size=64, dropout=1, precision="fp32")
BF16 = SMALL.model_copy(update={"precision": "bf16"})


def gradients(net: Cnn, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    nn.functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("count", [2, 37, 64])
def test_a_step_has_the_gradients_and_statistics_of_the_models_own_layers(dataset: Dataset, count: int) -> None:
    images, labels = torch.tensor(dataset.train.images[:count]), torch.tensor(dataset.train.labels[:count])
    torch.manual_seed(count)
    one = Cnn(10, 1.0).double().to(memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        one.norm1.weight[::5] *= -1
    other = copy.deepcopy(one)
    for net in (one, other):
        seed_dropout(net, (3,))
    x = (images[:, None].double() / 255).to(memory_format=torch.channels_last)
    expected, given = one(x), training_logits(other, images, torch.float64)
    torch.testing.assert_close(given, expected)
    theirs, mine = gradients(one, expected, labels), gradients(other, given, labels)
    assert mine.keys() == theirs.keys() == dict(one.named_parameters()).keys()
    for name in theirs:
        torch.testing.assert_close(mine[name], theirs[name], msg=name)
    for (name, buffer), (_, own) in zip(one.named_buffers(), other.named_buffers(), strict=True):
        torch.testing.assert_close(own, buffer, msg=name)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_as_plain_does(dataset: Dataset, precision: str) -> None:
    config = SMALL.model_copy(update={"precision": precision})
    engines = [kind(config, 10, "cpu") for kind in (Engine, FastEngine)]
    theirs, mine = [[engine.train_epoch(dataset.train, epoch).loss for epoch in (1, 2)] for engine in engines]
    np.testing.assert_allclose(mine, theirs, rtol=0.03)
    assert mine[1] < mine[0]
    assert list(engines[1].state()) == list(engines[0].state())


def test_batches_that_leave_a_few_images_over(dataset: Dataset) -> None:
    odd = Split(dataset.train.images[:131], dataset.train.labels[:131])
    for precision in ("fp32", "bf16"):
        engine = FastEngine(SMALL.model_copy(update={"precision": precision}), 10, "cpu")
        assert np.isfinite(engine.train_epoch(odd, 1).loss)


def trained(seed: int, data: Split) -> list[Tensor]:
    engine = FastEngine(BF16.model_copy(update={"seed": seed}), 10, "cpu")
    engine.train_epoch(data, 1)
    return list(engine.state().values())


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(dataset: Dataset) -> None:
    first, again, other = (trained(seed, dataset.train) for seed in (1, 1, 2))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not all(torch.equal(*pair) for pair in zip(first, other, strict=True))


def test_a_training_goes_on_in_the_other_engine(dataset: Dataset) -> None:
    """The precisions and machines of a run's two halves may differ; the names of its state don't."""
    engine = FastEngine(SMALL, 10, "cpu")
    engine.train_epoch(dataset.train, 1)
    plain = Engine(SMALL, 10, "cpu")
    plain.load_state({name: tensor.clone() for name, tensor in engine.state().items()})
    assert plain.evaluate(dataset.validation).loss == engine.evaluate(dataset.validation).loss
    losses = [each.train_epoch(dataset.train, 2).loss for each in (engine, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_the_cnn_in_bf16_on_a_cpu_is_trained_fast_and_all_else_plainly() -> None:
    assert type(make_engine(BF16, 10, "cpu")) is FastEngine
    assert type(make_engine(ORIGINAL.model_copy(update={"precision": "bf16"}), 10, "cpu")) is FastEngine
    assert type(make_engine(SMALL, 10, "cpu")) is Engine
    assert type(make_engine(BF16.model_copy(update={"model": "resnet"}), 10, "cpu")) is Engine


class OneMoreLayer(Cnn):
    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__(classes, dropout)
        self.pool1 = nn.Sequential(nn.Dropout(0.1), self.pool1)  # type: ignore[assignment]


class AnotherForward(Cnn):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class OneLayerLess(Cnn):
    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__(classes, dropout)
        self.norm4 = nn.Identity()  # type: ignore[assignment]


@pytest.mark.parametrize("changed", [OneMoreLayer, AnotherForward, OneLayerLess])
def test_a_cnn_that_somebody_changed_is_trained_as_it_is(changed: type[Cnn], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmnist.models.Cnn", changed)
    assert type(make_engine(BF16, 10, "cpu")) is Engine


def test_a_wider_cnn_is_still_trained_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wider(Cnn):
        def __init__(self, classes: int, dropout: float) -> None:
            super().__init__(classes, dropout)
            self.dense1, self.dense2 = nn.Linear(1152, 64), nn.Linear(64, classes)

    monkeypatch.setattr("fmnist.models.Cnn", Wider)
    assert type(make_engine(BF16, 10, "cpu")) is FastEngine
    assert fast.computes_the_same(Wider(10, 1.0))
