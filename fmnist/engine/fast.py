"""The engine for the CNN in bfloat16 on a CPU: `plain.py`'s training, the step's layers merged as in `fused.py`.

What it computes is what the model's own layers compute, with the same parameters, moving statistics and draws; only
the roundings differ. Whatever else an engine does, and evaluation, is `plain`'s.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmnist.engine import plain
from fmnist.engine.fused import bits, conv_relu, conv_relu_pool, masked, patches, stem, taps
from fmnist.engine.graphed import GraphedEngine
from fmnist.layers import BatchNorm, Dropout, FlipAveraged, normalize, seed_dropout
from fmnist.models import Cnn
from fmnist.recipe import TrainConfig


def make_engine(config: TrainConfig, classes: int, device: str = "auto") -> plain.Engine:
    """The engine that suits the model and the device. Raises UserError for what is not there.

    Somebody may have changed the CNN in `models.py`: then `plain` trains it, as it trains every other model.
    In float32 `plain` is no slower.
    """
    if plain.choose_device(device).type == "cuda":
        return GraphedEngine(config, classes, device)
    engine = plain.Engine(config, classes, device)
    network = _network(engine.model)
    if engine.precision is torch.bfloat16 and isinstance(network, Cnn) and computes_the_same(network):
        return FastEngine(config, classes, device)
    return engine


class FastEngine(plain.Engine):
    """Trains `Cnn`, on a CPU, in either precision."""

    def _forward(self, images: Tensor) -> Tensor:
        if not self.model.training:
            return super()._forward(images)
        network = _network(self.model)
        assert isinstance(network, Cnn)
        return training_logits(network, images, self.precision)


def _network(model: nn.Module) -> nn.Module:
    """What is trained of `model`."""
    return model.model if isinstance(model, FlipAveraged) else model


def training_logits(net: Cnn, images: Tensor, dtype: torch.dtype) -> Tensor:
    """What `net` makes of uint8 [N, 28, 28] when it trains; products and feature maps are of `dtype`."""
    kernel, bias = _weights(net.conv1)
    norm = net.norm1
    products = taps(kernel, bias).to(dtype)
    x, mean, variance = stem(patches(images, dtype), products, norm.weight, norm.bias, norm.eps)
    norm.track(mean, variance)
    x = _normalize_dropped(x, net.dropout1, net.norm2)
    x = conv_relu_pool(_maps(x, len(images), 13), *(tensor.to(dtype) for tensor in _weights(net.conv2)))
    x = _normalize_dropped(x.permute(0, 2, 3, 1).flatten(0, 2), net.dropout2, net.norm3)
    x = conv_relu(_maps(x, len(images), 5), *(tensor.to(dtype) for tensor in _weights(net.conv3)))
    x = _normalize_dropped(net.flatten(x), net.dropout3, net.norm4)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        logits: Tensor = net.dense2(net.dropout4(F.relu(net.dense1(x))))
    return logits if dtype is torch.float64 else logits.float()


def _weights(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None
    return layer.weight, layer.bias


def _maps(rows: Tensor, count: int, side: int) -> Tensor:
    """[N*H*W, C] as [N, C, H, W]; moves no data."""
    return rows.view(count, side, side, -1).permute(0, 3, 1, 2)


def _normalize_dropped(x: Tensor, dropout: Dropout, norm: BatchNorm) -> Tensor:
    """norm(dropout(x)), for x [R, C].

    Dropout scales what it keeps by s. A norm takes the scale out again, all but for its epsilon, so nothing is
    scaled here, and the norm's epsilon becomes epsilon/s^2.
    """
    if dropout.dropped:
        x = masked(x, dropout.draw(x.numel()).view(x.shape).to(bits(x).dtype).neg_())
    y, mean, variance = normalize(x, norm.weight, norm.bias, norm.eps / dropout.scale**2)
    norm.track(mean * dropout.scale, variance * dropout.scale**2)
    return y


def computes_the_same(model: Cnn) -> bool:
    """Whether `training_logits` gives what `model` itself does, moving statistics included, on a few images."""
    images = torch.arange(4 * 28 * 28).mul(97).remainder(251).to(torch.uint8).view(4, 28, 28)
    one, other = copy.deepcopy(model).double().train(), copy.deepcopy(model).double().train()
    for net in (one, other):
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        seed_dropout(net, (0,))
    with torch.no_grad():
        expected = one(images[:, None].double() / 255)
        try:
            given = training_logits(other, images, torch.float64)
        except (AssertionError, AttributeError, RuntimeError, TypeError):  # a layer is missing, or another in its place
            return False
    kept = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return torch.allclose(given, expected) and all(torch.allclose(mine, yours) for mine, yours in kept)
