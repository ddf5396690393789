"""Architectures by name: a model is one function that returns a module.

A model takes float images [N, 1, 28, 28] in 0..1 and gives logits [N, classes].
`cnn` is the original's network, layer for layer, with the semantics of Keras.
"""

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmnist.data.formats import SIDE
from fmnist.errors import UserError, listing, one_line
from fmnist.layers import BatchNorm, Dropout, Flatten

ModelFunction = Callable[[int, float], nn.Module]
"""(number of classes, factor on the model's own dropout rates) -> module."""

_MODELS: dict[str, ModelFunction] = {}
MODELS: Mapping[str, ModelFunction] = MappingProxyType(_MODELS)


def model(name: str) -> Callable[[ModelFunction], ModelFunction]:
    """Decorator: offer a function as the architecture `name`."""

    def register(function: ModelFunction) -> ModelFunction:
        _MODELS[name] = function
        return function

    return register


def find_model(name: str) -> ModelFunction:
    """The architecture called `name`, or the function at an import path, `package.module:function`.

    Raises UserError if there is none.
    """
    if name in MODELS:
        return MODELS[name]
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(
            f"model {name!r}", f"there is no such model; choose {listing(MODELS)}, or module:function of your own"
        )
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:
        reason = error if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"model {name!r}", f"cannot be imported ({reason}); give it as module:function, and mend the module"
        ) from error
    if not callable(function):
        raise UserError(f"model {name!r}", "is no function; give one that takes (classes, dropout)")
    return cast(ModelFunction, function)


def build_model(name: str, classes: int, dropout: float) -> nn.Module:
    """The architecture `name` with its first weights. Raises UserError where it is not what a training needs."""
    function = find_model(name)
    try:
        module = function(classes, dropout)
        problem = _problem_of(module, classes)
    except Exception as error:  # noqa: BLE001 - whatever the user's own function raises
        problem = f"raises {type(error).__name__}: {one_line(error)[:300]}"
    if problem:
        raise UserError(f"model {name!r}", f"{problem}; give a function that takes (classes, dropout)")
    return module


def _problem_of(module: object, classes: int) -> str | None:
    """Why this is no model, if it is none. It runs, which also gives lazy layers their weights."""
    if not isinstance(module, nn.Module):
        return f"gives {type(module).__name__}, not a torch module"
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return "has no parameters to train"
    images = torch.zeros(2, 1, SIDE, SIDE)
    with torch.no_grad():
        module.eval()(images)
        # And as a training lays it out in memory, where `view` may fail and `reshape` does not.
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        logits = module(images.to(memory_format=torch.channels_last))
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != [2, classes]:
        return f"makes {shape} of [2, 1, {SIDE}, {SIDE}] where logits [2, {classes}] are wanted"
    return None


def _with_keras_init(module: nn.Module, first: nn.Module) -> None:
    """He-normal for the first kernel, Glorot-uniform for the others, zero biases (all truncated as in Keras)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if layer is first:
                fan_in = layer.weight[0].numel()
                # Keras truncates at two standard deviations and divides by what that leaves of the deviation.
                std = (2 / fan_in) ** 0.5 / 0.87962566103423978
                nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Cnn(nn.Module):
    """The original's network: 246,666 parameters as Keras counts them, 244,106 of them trainable."""

    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.norm1 = BatchNorm(32)
        self.pool1 = nn.MaxPool2d(2)
        self.dropout1 = Dropout(0.25 * dropout)
        self.norm2 = BatchNorm(32)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool2 = nn.MaxPool2d(2)
        self.dropout2 = Dropout(0.25 * dropout)
        self.norm3 = BatchNorm(64)
        self.conv3 = nn.Conv2d(64, 128, 3)
        self.dropout3 = Dropout(0.4 * dropout)
        self.flatten = Flatten()
        self.norm4 = BatchNorm(128 * 3 * 3)
        self.dense1 = nn.Linear(128 * 3 * 3, 128)
        self.dropout4 = Dropout(0.3 * dropout)
        self.dense2 = nn.Linear(128, classes)
        _with_keras_init(self, first=self.conv1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout1(self.pool1(self.norm1(F.relu(self.conv1(x)))))
        x = self.dropout2(self.pool2(F.relu(self.conv2(self.norm2(x)))))
        x = self.dropout3(F.relu(self.conv3(self.norm3(x))))
        x = self.dropout4(F.relu(self.dense1(self.norm4(self.flatten(x)))))
        return cast(Tensor, self.dense2(x))


@model("cnn")
def cnn(classes: int, dropout: float) -> nn.Module:
    """The original's network."""
    return Cnn(classes, dropout)


class _ConvNorm(nn.Sequential):
    def __init__(self, channels_in: int, channels_out: int, pool: bool = False) -> None:
        conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        pools = [nn.MaxPool2d(2)] if pool else []  # before the norm, which then has a quarter to do
        super().__init__(conv, *pools, BatchNorm(channels_out), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_ConvNorm(channels, channels), _ConvNorm(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.body(x))


class _Head(nn.Module):
    """Largest value of each channel -> dropout -> logits, scaled down so that early softmaxes stay soft."""

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(0.2 * dropout)
        self.dense = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.dense(self.dropout(x.amax((2, 3))))) / 8


@model("resnet")
def resnet(classes: int, dropout: float) -> nn.Module:
    """A residual network of ten convolutions: more accurate, slower. 488,026 parameters as Keras counts them."""
    return nn.Sequential(
        _ConvNorm(1, 16),
        _ConvNorm(16, 32, pool=True),
        _Residual(32),
        _ConvNorm(32, 64, pool=True),
        _Residual(64),
        _ConvNorm(64, 128, pool=True),
        _Residual(128),
        _Head(128, classes, dropout),
    )


class Layer(NamedTuple):
    """A row of the layer table."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    """Trainable ones and moving statistics, as Keras counts them."""


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """(all, trainable): all includes the moving statistics of batch normalization, as in Keras."""
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    statistics = sum(b.numel() for b in module.buffers() if b.is_floating_point())
    return trainable + frozen + statistics, trainable


def layer_table(module: nn.Module, input_shape: tuple[int, ...] = (1, 28, 28)) -> list[Layer]:
    """The layers of `module`, each once, in the order in which they run; shapes are without the batch's dimension."""
    layers: dict[str, Layer] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) and output else output  # recurrent layers give more
            shape = tuple(first.shape[1:]) if isinstance(first, Tensor) else ()
            layers.setdefault(name, Layer(name, type(layer).__name__, shape, count_parameters(layer)[0]))

        return hook

    leaves = [(name, layer) for name, layer in module.named_modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(note(name)) for name, layer in leaves]
    was_training = module.training
    try:
        with torch.inference_mode():
            module.eval()(torch.zeros(1, *input_shape, device=next(module.parameters()).device))
    finally:
        module.train(was_training)
        for handle in hooks:
            handle.remove()
    return list(layers.values())
