import numpy as np
import pytest
import torch
from torch import nn

from fmnist.errors import UserError
from fmnist.models import MODELS, Dropout, count_parameters, find_model, layer_table, seed_dropout


def test_the_layer_table_is_the_original_layer_for_layer() -> None:
    table = layer_table(find_model("cnn")(10, 1.0))
    assert [(row.kind, row.output_shape, row.parameters) for row in table] == [
        ("Conv2d", (32, 26, 26), 320),
        ("BatchNorm", (32, 26, 26), 128),
        ("MaxPool2d", (32, 13, 13), 0),
        ("Dropout", (32, 13, 13), 0),
        ("BatchNorm", (32, 13, 13), 128),
        ("Conv2d", (64, 11, 11), 18_496),
        ("MaxPool2d", (64, 5, 5), 0),
        ("Dropout", (64, 5, 5), 0),
        ("BatchNorm", (64, 5, 5), 256),
        ("Conv2d", (128, 3, 3), 73_856),
        ("Dropout", (128, 3, 3), 0),
        ("Flatten", (1152,), 0),
        ("BatchNorm", (1152,), 4_608),
        ("Linear", (128,), 147_584),
        ("Dropout", (128,), 0),
        ("Linear", (10,), 1_290),
    ]
    assert sum(row.parameters for row in table) == 246_666


def test_the_cnn_drops_at_the_originals_rates() -> None:
    rates = [layer.rate for layer in find_model("cnn")(10, 1.0).modules() if isinstance(layer, Dropout)]
    assert rates == [0.25, 0.25, 0.4, 0.3]


def test_initial_weights_are_keras() -> None:
    model = find_model("cnn")(10, 1.0)
    first, second = model.get_parameter("conv1.weight"), model.get_parameter("conv2.weight")
    assert first.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.15)  # He: 2 over the inputs
    assert first.abs().max().item() <= 2 * (2 / 9) ** 0.5 / 0.8796 + 1e-6  # cut at two standard deviations
    limit = (6 / (32 * 9 + 64 * 9)) ** 0.5  # Glorot: 6 over inputs and outputs, uniform
    assert second.abs().max().item() == pytest.approx(limit, rel=0.01)
    assert second.std().item() == pytest.approx(limit / 3**0.5, rel=0.03)
    assert all(not value.any() for name, value in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_every_model_takes_any_number_of_classes(name: str, classes: int) -> None:
    model = find_model(name)(classes, 1.0)
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, classes)
    assert count_parameters(model)[1] < count_parameters(model)[0]


@pytest.mark.parametrize("name", ["banana", "banana:x", "os:nothing", "os:sep", ":", "os:", "a b:c"])
def test_a_model_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match=f"^model {name!r}: "):
        find_model(name)


def test_a_model_of_ones_own_by_import_path() -> None:
    assert find_model("fmnist.models:resnet") is MODELS["resnet"]


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.4, 0.5])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    layer = Dropout(rate)
    seed_dropout(layer, (0,))
    out = layer(torch.ones(200, 32, 13, 13))
    dropped = (out == 0).float()
    assert dropped.mean().item() == pytest.approx(round(rate * 256) / 256, abs=2e-3)
    assert out.mean().item() == pytest.approx(1, abs=4e-3)
    flat = dropped.flatten(1)
    for shifted in (flat.roll(1, 1), flat.roll(1, 0), flat.roll(8, 1), flat.roll(13, 1)):  # units and samples
        assert abs(np.corrcoef(flat.flatten(), shifted.flatten())[0, 1]) < 4e-3
    again = (layer(torch.ones(200, 32, 13, 13)) == 0).float()  # steps
    assert abs(np.corrcoef(dropped.flatten(), again.flatten())[0, 1]) < 4e-3


def test_dropout_masks_follow_from_the_seed_and_differ_between_layers() -> None:
    layers = nn.ModuleList([Dropout(0.5), Dropout(0.5)])
    x = torch.ones(8, 4, 6, 6)

    def masks(seed: int) -> list[torch.Tensor]:
        seed_dropout(layers, (seed, 3))
        return [layer(x) for layer in layers]

    first, second = masks(1)
    assert torch.equal(first, masks(1)[0]) and torch.equal(second, masks(1)[1])
    assert not torch.equal(first, second) and not torch.equal(first, masks(2)[0])


def test_dropout_is_itself_in_every_memory_format_and_off_in_evaluation() -> None:
    layer = Dropout(0.5)
    x = torch.rand(4, 8, 5, 5).to(memory_format=torch.channels_last) + 1
    out = layer(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out[out != 0], 2 * x[out != 0])
    assert torch.equal(layer.eval()(x), x)


def test_dropout_passes_gradients_where_it_passed_values() -> None:
    x = torch.rand(4, 8, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, (out != 0).float() * 2)
