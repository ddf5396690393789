"""Steps that are recorded and replayed. Without a GPU the recording is the step itself; all else is as with one."""

import random
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

from fmnist.data.dataset import Dataset, Split
from fmnist.engine import graphed
from fmnist.engine.fast import make_engine
from fmnist.engine.graphed import GraphedEngine
from fmnist.engine.peers import Alone
from fmnist.engine.plain import Engine
from fmnist.models import MODELS
from fmnist.recipe import TrainConfig

CONFIG = TrainConfig(epochs=3, batch_size=100, dropout=0, precision="fp32", shift=1, cutout=6)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


Step = Callable[[], None]
Gradients = list[Tensor | None]


def remembered(step: Step, parameters: Sequence[nn.Parameter]) -> tuple[Step, Gradients]:
    """As the GPU's: one place for the gradients, which every replay fills."""
    step()
    places = [torch.empty_like(parameter) for parameter in parameters]

    def replay() -> None:
        step()
        for parameter, place in zip(parameters, places, strict=True):
            assert parameter.grad is not None
            place.copy_(parameter.grad)
            parameter.grad = None

    return replay, list(places)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Recordings are the steps themselves. An entry for each."""
    found: list[int] = []

    def record(step: Step, parameters: Sequence[nn.Parameter]) -> tuple[Step, Gradients]:
        found.append(len(found))
        return remembered(step, parameters)

    monkeypatch.setattr(graphed, "record", record)
    return found


def trained(engine: Engine, dataset: Dataset, epochs: range = range(1, 4)) -> dict[str, Tensor]:
    for epoch in epochs:
        result = engine.train_epoch(dataset.train, epoch)
        assert result.images == 320
    told = {"loss": torch.tensor(result.loss), "accuracy": torch.tensor(result.accuracy)}
    return {name: tensor.clone() for name, tensor in (engine.state() | told).items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("model", list(MODELS))
def test_replayed_steps_train_as_plain_does(recorded: list[int], dataset: Dataset, model: str, optimizer: str) -> None:
    config = CONFIG.model_copy(update={"model": model, "optimizer": optimizer})
    given = trained(GraphedEngine(config, 10, "cpu"), dataset)
    assert recorded == [0, 1]  # of 100 images and of 20
    assert_same(given, trained(Engine(config, 10, "cpu"), dataset))


def test_it_goes_on_from_a_state_as_if_nothing_had_happened(recorded: list[int], dataset: Dataset) -> None:
    whole = trained(GraphedEngine(CONFIG, 10, "cpu"), dataset)
    first, second = GraphedEngine(CONFIG, 10, "cpu"), GraphedEngine(CONFIG, 10, "cpu")
    middle = trained(first, dataset, range(1, 2))
    trained(second, dataset)  # and has recordings, which look elsewhere
    second.load_state({name: tensor for name, tensor in middle.items() if "/" in name or name == "step"})
    assert_same(trained(second, dataset, range(2, 4)), whole)


def test_other_data_get_recordings_of_their_own(recorded: list[int], dataset: Dataset) -> None:
    engine, plain = GraphedEngine(CONFIG, 10, "cpu"), Engine(CONFIG, 10, "cpu")
    for trainer in (engine, plain):
        trained(trainer, dataset, range(1, 2))
        trainer.train_epoch(dataset.validation, 2)
    assert len(recorded) == 3
    assert_same(engine.state(), plain.state())


def refused(step: Step, parameters: Sequence[nn.Parameter]) -> tuple[Step, Gradients]:
    step()
    raise RuntimeError("operation not permitted when stream is capturing")


def half_done(step: Step, parameters: Sequence[nn.Parameter]) -> tuple[Step, Gradients]:
    _, gradients = remembered(step, parameters)
    return lambda: None, gradients


@pytest.mark.parametrize("record", [refused, half_done])
def test_a_step_that_cannot_be_recorded_is_done_as_plain_does(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset, record: Callable[..., tuple[Step, Gradients]]
) -> None:
    monkeypatch.setattr(graphed, "record", record)
    given = trained(GraphedEngine(CONFIG, 10, "cpu"), dataset)
    assert_same(given, trained(Engine(CONFIG, 10, "cpu"), dataset))


class Moody(nn.Module):
    """Draws its random numbers in Python, where no recording sees them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x * (1 + random.random()))
        return logits


def moody(classes: int, dropout: float) -> nn.Module:
    return Moody(MODELS["cnn"](classes, dropout))


class Waiting(Moody):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x / float(x.max()))
        return logits


def waiting(classes: int, dropout: float) -> nn.Module:
    return Waiting(MODELS["cnn"](classes, dropout))


def test_a_replay_that_does_something_else_is_given_up(monkeypatch: pytest.MonkeyPatch, dataset: Dataset) -> None:
    def frozen(step: Step, parameters: Sequence[nn.Parameter]) -> tuple[Step, Gradients]:
        replay, gradients = remembered(step, parameters)
        state = random.getstate()

        def always_the_same() -> None:
            random.setstate(state)
            replay()

        return always_the_same, gradients

    monkeypatch.setattr(graphed, "record", frozen)
    engine = GraphedEngine(CONFIG.model_copy(update={"model": f"{__name__}:moody"}), 10, "cpu")
    trained(engine, dataset, range(1, 2))
    assert not engine._recordable


def test_with_peers_nothing_is_recorded(recorded: list[int], dataset: Dataset) -> None:
    class Two(Alone):
        size = 2

    engine, plain = GraphedEngine(CONFIG, 10, "cpu"), Engine(CONFIG, 10, "cpu")
    engine.peers = Two()
    assert_same(trained(engine, dataset), trained(plain, dataset))
    assert recorded == []


@pytest.fixture
def undisturbed() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@on_gpu
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("model", list(MODELS))
def test_on_a_gpu_it_trains_as_plain_does_to_the_bit(dataset: Dataset, model: str, precision: str) -> None:
    config = CONFIG.model_copy(update={"model": model, "precision": precision, "dropout": 1})
    engine = make_engine(config, 10, "cuda")
    assert isinstance(engine, GraphedEngine)
    given = trained(engine, dataset)
    assert len(engine._recorded) == 2
    assert_same(given, trained(make_engine(config, 10, "cuda"), dataset))
    assert_same(given, trained(Engine(config, 10, "cuda"), dataset))


@on_gpu
def test_on_a_gpu_it_goes_on_from_a_state_to_the_bit(dataset: Dataset) -> None:
    config = CONFIG.model_copy(update={"dropout": 1})
    whole = trained(make_engine(config, 10, "cuda"), dataset)
    middle = trained(make_engine(config, 10, "cuda"), dataset, range(1, 2))
    engine = make_engine(config, 10, "cuda")
    engine.load_state({name: tensor.cpu() for name, tensor in middle.items() if "/" in name or name == "step"})
    assert_same(trained(engine, dataset, range(2, 4)), whole)


@on_gpu
def test_on_a_gpu_a_steps_gradients_are_the_processors(dataset: Dataset) -> None:
    few, gradients = Split(dataset.train.images[:100], dataset.train.labels[:100]), []
    for device in ("cuda", "cpu"):
        engine = make_engine(CONFIG, 10, device)
        engine.train_epoch(few, 1)
        gradients.append([p.grad.cpu() for p in engine.model.parameters() if p.grad is not None])
    for given, expected in zip(*gradients, strict=True):
        assert (given - expected).norm() < 1e-3 * expected.norm() + 1e-5


@on_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_on_a_gpu_nothing_waits_within_an_epoch(dataset: Dataset, undisturbed: None) -> None:
    engine = make_engine(CONFIG.model_copy(update={"dropout": 1}), 10, "cuda")
    trained(engine, dataset, range(1, 2))

    def watched(images: int) -> None:
        torch.cuda.set_sync_debug_mode("default" if images == 320 else "error")

    engine.train_epoch(dataset.train, 2, watched)


@on_gpu
@pytest.mark.parametrize("model", ["moody", "waiting"])
def test_on_a_gpu_a_model_that_cannot_be_recorded_trains_all_the_same(dataset: Dataset, model: str) -> None:
    config = CONFIG.model_copy(update={"model": f"{__name__}:{model}", "dropout": 1})
    engine = make_engine(config, 10, "cuda")
    first = engine.train_epoch(dataset.train, 1)
    assert not engine._recordable  # type: ignore[attr-defined]
    assert engine.train_epoch(dataset.train, 2).loss < first.loss
    recordable = make_engine(CONFIG, 10, "cuda")
    trained(recordable, dataset)
    assert recordable._recordable  # type: ignore[attr-defined]
