from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fmnist.data.dataset import Dataset
from fmnist.errors import UserError
from fmnist.layers import Dropout
from fmnist.models import MODELS, build_model, count_parameters, find_model, layer_table


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


def of_three_channels(classes: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 26 * 26, classes))


class Viewed(nn.Module):
    """As tutorials flatten it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.dense = nn.Conv2d(1, 8, 3), nn.Linear(8 * 26 * 26, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.dense(self.conv(x).view(len(x), -1))
        return logits


def of_a_view(classes: int, dropout: float) -> nn.Module:
    return Viewed(classes)


def of_eleven_classes(classes: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes + 1))


def of_nothing(classes: int, dropout: float) -> nn.Module:
    return nn.Flatten()


def of_the_wrong_signature() -> None: ...


def of_no_module(classes: int, dropout: float) -> list[int]:
    return [1]


class Rows(nn.Module):
    """A recurrent network over the rows of the picture: its layer gives a tuple."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.rows = nn.GRU(28, 16, batch_first=True)
        self.dense = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.dense(self.rows(x.squeeze(1))[0][:, -1])
        return logits


class Pairs(Rows):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:  # type: ignore[override]
        return super().forward(x), 1


def recurrent(classes: int, dropout: float) -> nn.Module:
    return Rows(classes)


def of_pairs(classes: int, dropout: float) -> nn.Module:
    return Pairs(classes)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (of_three_channels, "raises RuntimeError: .*; give a function that takes"),
        (of_eleven_classes, r"makes \[2, 11\] of \[2, 1, 28, 28\] where logits \[2, 10\] are wanted; give a function"),
        (of_a_view, r"raises RuntimeError: view size is not compatible .* Use .reshape\(...\) instead.; give"),
        (of_nothing, "has no parameters to train; give"),
        (of_the_wrong_signature, "raises TypeError: .*; give a function"),
        (of_no_module, "gives list, not a torch module; give"),
        (of_pairs, "makes tuple of "),
    ],
)
def test_a_model_that_does_not_fit_is_named_with_the_reason(function: object, told: str) -> None:
    name = f"{__name__}:{function.__name__}"  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=f"^model '{name}': {told}"):
        build_model(name, 10, 1.0)


@pytest.mark.parametrize("source", ["def f(:", "1 / 0", "import nothing_of_the_kind", "raise SystemExit"])
def test_a_module_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"own{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    with pytest.raises(UserError, match=f"^model '{name}:f': cannot be imported .*; give it as module:function, and"):
        build_model(f"{name}:f", 10, 1.0)


def test_layers_that_give_more_than_a_tensor_are_listed_too(dataset: Dataset) -> None:
    layers = layer_table(build_model(f"{__name__}:recurrent", 10, 1.0))
    assert [(layer.kind, layer.output_shape) for layer in layers] == [("GRU", (28, 16)), ("Linear", (10,))]
