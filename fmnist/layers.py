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

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.dropped == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        draws = self.rng.integers(0, 2**64, size=(x.numel() + 7) // 8, dtype=np.uint64)
        kept = torch.from_numpy(draws.view(np.uint8))[: x.numel()] >= self.dropped
        # The mask is laid out as x lies in memory, so that the product walks both in order.
        mask = torch.as_strided(kept, x.shape, x.stride()) if x.dim() == 4 else kept.view(x.shape)
        return x * mask * (256 / (256 - self.dropped))

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
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        count, keep = input.numel() // input.shape[1], 1 - self.momentum
        unbiased = self.running_var.clone()
        output = F.batch_norm(input, self.running_mean, unbiased, self.weight, self.bias, True, self.momentum, self.eps)
        with torch.no_grad():  # `unbiased` is now keep*before + momentum*variance: take count-1 of count parts of it
            self.running_var.copy_(unbiased.lerp(keep * self.running_var, 1 / count))
        return output


class Flatten(nn.Module):
    """[N, C, H, W] -> [N, H*W*C], the order of Keras; in the channels-last format it moves no data."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)
