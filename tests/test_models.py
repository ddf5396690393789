import pytest
import torch

from fmnist.errors import UserError
from fmnist.layers import Dropout
from fmnist.models import MODELS, count_parameters, find_model, layer_table


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
