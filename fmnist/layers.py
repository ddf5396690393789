"""Layers with the semantics of Keras, and the speed that a CPU allows."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout whose masks cost little on a CPU.

    `nn.Dropout` draws one Bernoulli variate a unit, one after the other, which takes half of a training
    step at this network's rates. Here one 64-bit draw decides eight units, a byte each, so the rate is
    rounded to 1/256; the scale uses the rounded rate, which keeps the expectation exact.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.dropped = round(rate * 256)  # of 256
        self.rng = np.random.Generator(np.random.SFC64())

    @property
    def scale(self) -> float:
        """What the values that are kept are multiplied by, which keeps the expectation."""
        return 256 / (256 - self.dropped)

    def draw(self, count: int) -> Tensor:
        """A fresh draw for each of `count` units: bool, whether it is kept."""
        draws = self.rng.bit_generator.random_raw((count + 7) // 8).view(np.uint8)[:count]
        return torch.from_numpy(draws >= self.dropped)  # NumPy compares bytes ten times as fast

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.dropped == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        kept = self.draw(x.numel())
        # The mask is laid out as x lies in memory, so that the product walks both in order.
        mask = torch.as_strided(kept, x.shape, x.stride()) if x.dim() == 4 else kept.view(x.shape)
        return x * mask * self.scale

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def seed_dropout(module: nn.Module, seed: tuple[int, ...]) -> None:
    """Start every dropout layer of `module` on a stream of its own that follows from `seed`."""
    layers = [layer for layer in module.modules() if isinstance(layer, Dropout)]
    for layer, child in zip(layers, np.random.SeedSequence(seed).spawn(len(layers)), strict=True):
        layer.rng = np.random.Generator(np.random.SFC64(child))


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalization as Keras does it: epsilon 1e-3, momentum .99, and a moving variance that averages
    the biased variances of the batches (PyTorch's averages the unbiased ones). Takes [N, C] and [N, C, H, W].
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, eps=1e-3, momentum=0.01)

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.dim() in (2, 4), input.shape

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        output, mean, variance = normalize(input, self.weight, self.bias, self.eps)
        self.track(mean, variance)
        return output

    def track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the moving statistics towards a batch's mean and biased variance."""
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)


def normalize(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """x [N, C] or [N, C, H, W], normalized over all but C; the mean and the biased variance that it had, [C]."""
    mean, variance = torch.zeros_like(weight), torch.zeros_like(weight)
    output = F.batch_norm(x, mean, variance, weight, bias, training=True, momentum=1.0, eps=epsilon)
    count = x.numel() // x.shape[1]
    return output, mean, variance * ((count - 1) / count)  # PyTorch gives the unbiased one


class Flatten(nn.Module):
    """[N, C, H, W] -> [N, H*W*C], the order of Keras; in the channels-last format it moves no data."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class FlipAveraged(nn.Module):
    """`model`, whose logits are in evaluation the mean over an image, [N, C, H, W], and its mirror image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits if self.training else (logits + self.model(x.flip(-1))) / 2
