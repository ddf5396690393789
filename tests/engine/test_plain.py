import numpy as np
import pytest
import torch
from torch import nn

from fmnist.data.dataset import Dataset, Split
from fmnist.engine.plain import Engine, choose_device, choose_precision, has_bf16, learning_rate
from fmnist.errors import Failure, UserError
from fmnist.models import MODELS
from fmnist.recipe import TrainConfig

SMALL = TrainConfig(epochs=2, batch_size=64, precision="fp32")


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in engine.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("model", list(MODELS))
def test_it_overfits_64_images(dataset: Dataset, model: str) -> None:
    few = Split(dataset.train.images[::5], dataset.train.labels[::5])
    config = TrainConfig(
        model=model,
        epochs=25,
        batch_size=32,
        learning_rate=1e-2,
        dropout=0,
        flip=False,
        label_smoothing=0,
        precision="fp32",
    )
    engine = Engine(config, 10, "cpu")
    losses = [engine.train_epoch(few, epoch + 1).loss for epoch in range(config.epochs)]
    assert losses[0] > 1
    assert losses[-1] < 0.05


def test_it_learns_what_it_has_not_seen(dataset: Dataset) -> None:
    engine = Engine(SMALL.model_copy(update={"epochs": 24}), 10, "cpu")
    before = engine.evaluate(dataset.validation)
    for epoch in range(1, 25):
        engine.train_epoch(dataset.train, epoch)
    after = engine.evaluate(dataset.validation)
    assert before.scores.accuracy < 0.3 < 0.5 < after.scores.accuracy
    assert after.confusion.sum() == len(dataset.validation)


def test_smoothed_labels_are_what_is_trained_on_and_the_loss_is_of_the_labels_as_they_are(dataset: Dataset) -> None:
    engine = Engine(SMALL.model_copy(update={"label_smoothing": 0.2}), 10, "cpu")
    engine.model.train()
    images, labels = torch.tensor(dataset.train.images[:64]), torch.tensor(dataset.train.labels[:64])
    logits, loss = engine._train_step(images, labels)
    spread = 0.8 * torch.eye(10)[labels] + 0.2 / 10
    bias = list(engine.model.parameters())[-1]
    assert bias.grad is not None
    torch.testing.assert_close(bias.grad, (logits.softmax(1) - spread).mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loss, -logits.log_softmax(1)[range(64), labels].mean())


def fed(config: TrainConfig, data: Split, epoch: int, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The images that an epoch feeds to the network, in their order."""
    engine, images = Engine(config, 10, "cpu"), list[bytes]()

    def step(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images.extend(image.numpy().tobytes() for image in x)
        return torch.zeros(len(x), 10), torch.zeros(())

    monkeypatch.setattr(engine, "_train_step", step)
    engine.train_epoch(data, epoch)
    return images


def test_about_half_of_the_images_are_mirrored(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = [image.tobytes() for image in dataset.train.images]
    mirrored = [image[:, ::-1].tobytes() for image in dataset.train.images]
    images = fed(SMALL, dataset.train, 1, monkeypatch)
    assert 130 < len(set(images) & set(mirrored)) < 190  # of 320
    assert len(set(images) & (set(mirrored) | set(straight))) == 320
    assert sorted(fed(SMALL.model_copy(update={"flip": False}), dataset.train, 1, monkeypatch)) == sorted(straight)


def test_every_epoch_has_an_order_of_its_own(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SMALL.model_copy(update={"flip": False})
    first, second = (fed(config, dataset.train, epoch, monkeypatch) for epoch in (1, 2))
    assert first != second
    assert sorted(first) == sorted(second)
    assert fed(config, dataset.train, 1, monkeypatch) == first
    assert fed(config.model_copy(update={"seed": 1}), dataset.train, 1, monkeypatch) != first


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(dataset: Dataset) -> None:
    def trained(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(seed + 3)  # whatever state the global generator is in
        engine = Engine(SMALL.model_copy(update={"seed": seed}), 10, "cpu")
        engine.train_epoch(dataset.train, 1)
        return weights(engine)

    first = trained(1)
    assert same(first, trained(1))
    assert not same(first, trained(2))


def test_training_leaves_the_callers_random_numbers_alone(dataset: Dataset) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    Engine(SMALL, 10, "cpu").train_epoch(dataset.train, 1)
    assert torch.equal(torch.rand(1), expected)


def with_torchs_own_dropout(classes: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, classes))


@pytest.mark.parametrize("model", [*MODELS, f"{__name__}:with_torchs_own_dropout"])
def test_a_restored_state_goes_on_to_the_same_bit(dataset: Dataset, model: str) -> None:
    config = SMALL.model_copy(update={"model": model, "epochs": 3})
    straight = Engine(config, 10, "cpu")
    straight.train_epoch(dataset.train, 1)
    saved = {name: tensor.clone().contiguous() for name, tensor in straight.state().items()}
    straight.train_epoch(dataset.train, 2)
    resumed = Engine(config, 10, "cpu")
    resumed.load_state(saved)
    resumed.train_epoch(dataset.train, 2)
    assert same(straight.state(), resumed.state())


def test_the_state_before_the_first_step_is_one_too(dataset: Dataset) -> None:
    first, other = Engine(SMALL, 10, "cpu"), Engine(SMALL, 10, "cpu")
    begun = {name: tensor.clone() for name, tensor in first.state().items()}
    first.train_epoch(dataset.train, 1)
    expected = weights(first)
    other.train_epoch(dataset.train, 2)
    for engine in (first, other):
        engine.load_state(begun)
        engine.train_epoch(dataset.train, 1)
        assert same(weights(engine), expected)


def test_the_state_of_another_model_is_refused(dataset: Dataset) -> None:
    engine = Engine(SMALL, 10, "cpu")
    engine.train_epoch(dataset.train, 1)
    other = Engine(SMALL.model_copy(update={"model": "resnet"}), 10, "cpu")
    with pytest.raises(Failure, match=r"model 'resnet': is not the one that was saved .*; undo what was changed"):
        other.load_state(engine.state())


def test_every_image_is_seen_once_an_epoch_but_for_a_lone_one(dataset: Dataset) -> None:
    seen: list[int] = []
    result = Engine(SMALL, 10, "cpu").train_epoch(dataset.train, 1, seen.append)
    assert (result.images, seen) == (320, [64, 128, 192, 256, 320])
    odd = Split(dataset.train.images[:129], dataset.train.labels[:129])
    assert Engine(SMALL, 10, "cpu").train_epoch(odd, 1).images == 128  # one image has no variance to normalize by


def test_a_blank_image_gives_finite_answers(dataset: Dataset) -> None:
    blank = Split(np.zeros((70, 28, 28), np.uint8), np.zeros(70, np.int64))
    engine = Engine(SMALL, 10, "cpu")
    assert np.isfinite(engine.train_epoch(blank, 1).loss)
    assert np.isfinite(engine.evaluate(blank).loss)


def test_bf16_stays_close_to_fp32(dataset: Dataset) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        engine = Engine(SMALL.model_copy(update={"precision": precision}), 10, "cpu")
        losses.append([engine.train_epoch(dataset.train, epoch).loss for epoch in (1, 2)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)
    assert losses[0] != losses[1]


def test_precision_and_device_by_name() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) is torch.float32
    assert choose_precision("bf16", cpu) is torch.bfloat16
    assert choose_precision("auto", cpu) is (torch.bfloat16 if has_bf16(cpu) else torch.float32)
    assert choose_device("cpu") == cpu
    with pytest.raises(UserError, match="device 'gpu': there is no such device; choose auto, cpu or cuda"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        assert choose_device("auto") == cpu
        with pytest.raises(UserError, match="device 'cuda': PyTorch sees no CUDA device here"):
            choose_device("cuda")


def test_onecycle_climbs_and_falls_to_next_to_nothing() -> None:
    config = TrainConfig(learning_rate=1.0)
    rates = [learning_rate(config, step, 1000) for step in range(1000)]
    top = rates.index(max(rates))
    assert 190 <= top <= 210
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[0] == pytest.approx(0.04, abs=0.01)
    assert rates[-1] < 1e-4


def test_the_schedule_ends_with_the_last_epoch_also_where_earlier_ones_had_more_steps(dataset: Dataset) -> None:
    """As after a resume with other peers, which leave another rest of an epoch out."""
    config = SMALL.model_copy(update={"epochs": 4})
    engine = Engine(config, 10, "cpu")
    engine.step = 1000
    engine.train_epoch(dataset.train, 4)
    steps = -(-len(dataset.train) // config.batch_size) * 4
    assert engine.rate == learning_rate(config, steps - 1, steps)


def test_constant_is_constant() -> None:
    config = TrainConfig(learning_rate=0.5, schedule="constant")
    assert {learning_rate(config, step, 10) for step in range(10)} == {0.5}


@pytest.mark.parametrize("model", list(MODELS))
def test_within_an_epoch_nothing_waits_for_the_device(
    dataset: Dataset, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To ask for a number of a tensor's would make a GPU finish all its work first, step by step."""
    waiting = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "nonzero")
    engine, asked, within = Engine(SMALL.model_copy(update={"model": model}), 10, "cpu"), list[str](), list[int]()
    for name in waiting:
        original = getattr(torch.Tensor, name)

        def watched(self: torch.Tensor, *arguments: object, name: str = name, original: object = original) -> object:
            if 0 < len(within) < 5:  # between the first step's end and the last one's
                asked.append(name)
            return original(self, *arguments)  # type: ignore[operator]

        monkeypatch.setattr(torch.Tensor, name, watched)
    engine.train_epoch(dataset.train, 1, within.append)
    assert within == [64, 128, 192, 256, 320]
    assert asked == []


def test_the_data_lie_on_the_device_from_epoch_to_epoch(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, moved, tensor = Engine(SMALL, 10, "cpu"), list[int](), torch.tensor

    def counted(values: object, **options: object) -> torch.Tensor:
        moved.append(len(values) if isinstance(values, np.ndarray) else 0)
        return tensor(values, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "tensor", counted)
    for epoch in (1, 2, 3):
        engine.train_epoch(dataset.train, epoch)
        engine.evaluate(dataset.validation)
    assert sorted(filter(None, moved)) == [80, 80, 320, 320]
