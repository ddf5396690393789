"""The layers of the CNN's training step, merged so that they pass over memory seldom and by fast instructions.

On a CPU the original's network spends as long in pooling, batch normalization, ReLU and dropout as in its
convolutions; PyTorch does not vectorize comparisons and selections of bfloat16. What is here sees the same bits as
integers, which are ordered as the numbers are where those are not negative: a ReLU is an integer maximum with 0, a
pool the largest of integers, a mask an `and` with 0 or -1. Each function gives the values and gradients of the
layers in `models.py` that it stands for. Feature maps are rows of channels, [N, H, W, C] in memory.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

_INTEGER = {torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}
CHANNELS_LAST = torch.channels_last
PART_BYTES = 3_000_000
"""So much of the first feature maps is worked on at a time: what a processor's last cache holds, with its gradients."""


def bits(x: Tensor) -> Tensor:
    """The same memory as integers of the same width."""
    return x.view(_INTEGER[x.dtype])


def patches(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 [N, 28, 28] -> [17, N*13*13]: the 4x4 pixels, 0 to 255, on which a unit of the first pool depends, each
    pixel a row; the last row is 1, for the bias. Both sides of a picture may be any even number instead of 28."""
    count, height, width = len(images), images.shape[1] // 2 - 1, images.shape[2] // 2 - 1
    halves = images.view(count, height + 1, 2, width + 1, 2).permute(2, 4, 0, 1, 3).to(dtype)
    seen = torch.empty(17, count, height, width, dtype=dtype)
    for row in range(4):
        for column in range(4):
            y, x = row // 2, column // 2
            seen[4 * row + column] = halves[row % 2, column % 2, :, y : y + height, x : x + width]
    seen[16] = 1
    return seen.view(17, -1)


def taps(kernel: Tensor, bias: Tensor) -> Tensor:
    """[C, 1, 3, 3] and [C] -> [4 * C, 17]: what to multiply `patches` by for each of a pool's four units."""
    shifts = [(0, 1, 0, 1), (1, 0, 0, 1), (0, 1, 1, 0), (1, 0, 1, 0)]
    placed = torch.stack([F.pad(kernel[:, 0], shift).flatten(1) for shift in shifts]) / 255
    return torch.cat([placed, bias.expand(4, -1)[..., None]], 2).flatten(0, 1)


def _largest(parts: Tensor | list[Tensor]) -> Tensor:
    """Elementwise of four; for integers as fast as memory."""
    first, second, third, fourth = parts
    return torch.maximum(torch.maximum(first, second), torch.maximum(third, fourth))


def _share(grad: Tensor, parts: Tensor | list[Tensor], largest: Tensor, shares: Tensor | list[Tensor]) -> None:
    """The gradient of a pool: `grad` goes to the first of the four `parts` that is the `largest`. All are bits."""
    left = shares[3].copy_(grad)
    for part, share in zip(parts[:3], shares[:3], strict=True):
        torch.eq(part, largest, out=share)
        share.neg_().bitwise_and_(left)
        left.bitwise_xor_(share)


def _cut_at_zero(grad: Tensor, output: Tensor) -> Tensor:
    """The gradient of a ReLU, in place."""
    torch.ops.aten.threshold_backward.grad_input(grad, output, 0, grad_input=grad)
    return grad


class _Stem(Function):
    """Convolution, ReLU, batch normalization, pool, as a product that makes all four units of a pool.

    `forward` takes `patches` [17, R], `taps` [4 * C, 17] of the same type, the norm's weight and bias [C] and its
    epsilon; it gives the pooled output [R, C] and the mean and biased variance [C] of what was normalized, which is
    every unit before the pool. Since a norm keeps the order of what it takes, the pool comes before it, and takes the
    smallest units of a channel whose weight is negative.

    The units are computed in parts that a processor's cache holds, and again for the gradients: that costs less than
    to write them to memory and to read them. Within, a channel is a row.
    """

    @staticmethod
    def forward(
        ctx: Any, seen: Tensor, taps: Tensor, weight: Tensor, bias: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        pooled = seen.new_empty(len(taps) // 4, seen.shape[1])
        turned = -(weight < 0).to(_INTEGER[seen.dtype])[:, None]  # inverted bits of >= 0 are in the opposite order
        some_turned, moments = bool(turned.any()), []
        unmoved = torch.zeros_like(weight), torch.zeros_like(weight)  # of their type are the statistics
        for some, out in _parts(seen, bits(pooled)):
            units = _units(some, taps)
            moments.append((out.shape[1], *torch.batch_norm_update_stats(units, *unmoved, 0.0)))
            if some_turned:
                out.copy_(_largest(bits(units) ^ turned) ^ turned)
            else:
                out.copy_(_largest(bits(units)))
        mean, variance = _together(moments)
        ctx.save_for_backward(seen, taps, pooled, mean, variance, weight)
        ctx.epsilon = epsilon
        ctx.mark_non_differentiable(mean, variance)
        (output,) = F.batch_norm(pooled[None], mean, variance, weight, bias, eps=epsilon)
        return _transposed(output), mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        seen, taps, pooled, mean, variance, weight = ctx.saved_tensors
        grad, spread = _transposed(grad), torch.rsqrt(variance + ctx.epsilon)
        _, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            grad[None], pooled[None], weight, None, None, mean, spread, True, ctx.epsilon, [False, True, True]
        )
        # A unit u gets  factor * (its share of grad) + slope * u + level,  where the last two come from its part in
        # the mean and in the variance.
        count, factor = 4 * seen.shape[1], weight * spread
        slope = -factor * spread * to_weight / count
        level = -factor * to_bias / count - slope * mean
        slope, level, factor = (values.to(seen.dtype)[:, None] for values in (slope, level, factor))
        grad, to_taps = grad * factor, torch.zeros_like(taps, dtype=weight.dtype)
        for some, some_grad, best in _parts(seen, grad, pooled):
            units = _units(some, taps)
            shares = torch.empty_like(units)
            _share(bits(some_grad), bits(units), bits(best), bits(shares))
            _cut_at_zero(shares.add_(level), units).addcmul_(units, slope)
            to_taps += shares.flatten(0, 1) @ some.t()
        return None, to_taps.to(taps.dtype), to_weight, to_bias, None


def _parts(*columns: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """`patches` [17, R] and some [C, R] in parts of as many R, so that all four units of a part take PART_BYTES.

    Their rows begin where a vector does: products take three times as long elsewhere.
    """
    size = max(1, PART_BYTES // (4 * 64 * columns[1][:, 0].nbytes)) * 64
    return zip(*(torch.split(rows, size, 1) for rows in columns), strict=True)


def _units(seen: Tensor, taps: Tensor) -> Tensor:
    """[4, C, R]: what a pool chooses from, after the ReLU."""
    units = (taps @ seen).view(4, -1, seen.shape[1])
    bits(units).clamp_min_(0)
    return units


def _transposed(x: Tensor) -> Tensor:
    """[R, C] of [C, R], for a small C or R. PyTorch moves it element by element; to multiply it by 1 is quicker."""
    small = torch.eye(min(x.shape), dtype=x.dtype)
    return x.t() @ small if len(small) == len(x) else small @ x.t()


def _together(moments: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The mean and variance [C] of a whole, from the counts, means and variances of its parts."""
    means = torch.stack([mean for _, mean, _ in moments])
    variances = torch.stack([variance for _, _, variance in moments])
    shares = torch.tensor([count for count, _, _ in moments]).to(means)
    shares /= shares.sum()
    mean = shares @ means
    return mean, shares @ (variances + (means - mean) ** 2)


class _ConvReluPool(Function):
    """A 3x3 convolution, ReLU, 2x2 pool: [N, C, H, W], [K, C, 3, 3], [K] -> [N, K, (H-2)//2, (W-2)//2].

    Of an odd number of rows or columns a pool leaves the last; here it isn't computed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        height, width = (x.shape[2] - 2) // 2, (x.shape[3] - 2) // 2
        used = x[:, :, : 2 * height + 2, : 2 * width + 2].contiguous(memory_format=CHANNELS_LAST)
        y = F.conv2d(used, kernel, bias)
        bits(y).clamp_min_(0)
        pooled = _largest(_quarters(bits(y)))
        ctx.save_for_backward(used, kernel, y, pooled)
        ctx.shape = x.shape
        return pooled.view(x.dtype).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        used, kernel, y, pooled = ctx.saved_tensors
        grad = _cut_at_zero(
            grad.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format), pooled.view(grad.dtype)
        )
        to_y = torch.empty_like(y)
        _share(bits(grad), _quarters(bits(y)), pooled, _quarters(bits(to_y)))
        # oneDNN's bfloat16 kernel gradient is quicker than copying the columns out, its float32 one is not.
        to_used, to_kernel = _conv_gradients(to_y, used, kernel, by_columns=used.dtype is not torch.bfloat16)
        to_x = torch.empty(ctx.shape, dtype=used.dtype, memory_format=CHANNELS_LAST).zero_()
        to_x[:, :, : used.shape[2], : used.shape[3]] = to_used
        return to_x, to_kernel, grad.sum((0, 1, 2))


def _quarters(x: Tensor) -> list[Tensor]:
    """Views of x [N, C, 2*H, 2*W], each [N, H, W, C]: what a pool chooses from."""
    return [x[:, :, down::2, right::2].permute(0, 2, 3, 1) for down in range(2) for right in range(2)]


class _ConvRelu(Function):
    """A 3x3 convolution and ReLU: [N, C, H, W], [K, C, 3, 3], [K] -> [N, K, H-2, W-2]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        y = F.conv2d(x, kernel, bias)
        bits(y).clamp_min_(0)
        ctx.save_for_backward(x, kernel, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, kernel, y = ctx.saved_tensors
        grad = _cut_at_zero(grad.clone(memory_format=CHANNELS_LAST), y)
        to_x, to_kernel = _conv_gradients(grad, x, kernel, by_columns=True)
        return to_x, to_kernel, grad.sum((0, 2, 3))


def _conv_gradients(grad: Tensor, x: Tensor, kernel: Tensor, by_columns: bool) -> tuple[Tensor, Tensor]:
    """The gradients of a 3x3 convolution's input and kernel; the latter by oneDNN, or as a product of matrices."""
    to_x, to_kernel, _ = torch.ops.aten.convolution_backward(
        grad, x, kernel, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, not by_columns, False]
    )
    if by_columns:
        channels, height = grad.shape[1:3]
        across = x.permute(0, 2, 3, 1).flatten(2).unfold(2, 3 * x.shape[1], x.shape[1])  # three neighbours in a piece
        columns = torch.stack([across[:, down : down + height] for down in range(3)], 3)
        rows = grad.permute(0, 2, 3, 1).reshape(-1, channels)
        product = columns.view(len(rows), -1).t() @ rows
        to_kernel = product.view(3, 3, -1, channels).permute(3, 2, 0, 1)
    return to_x, to_kernel


class _Masked(Function):
    """x where the integer `mask`, laid out as `x` lies in memory, is -1; 0 where it is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return (bits(x) & mask).view(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return (bits(grad) & mask).view(grad.dtype), None


stem: Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]] = _Stem.apply
conv_relu_pool: Callable[[Tensor, Tensor, Tensor], Tensor] = _ConvReluPool.apply
conv_relu: Callable[[Tensor, Tensor, Tensor], Tensor] = _ConvRelu.apply
masked: Callable[[Tensor, Tensor], Tensor] = _Masked.apply
