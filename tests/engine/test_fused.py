"""Each merged function against the layers that it stands for, in float64, where nothing is hidden by rounding."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fmnist.engine import fused
from fmnist.engine.fused import bits, conv_relu, conv_relu_pool, masked, patches, stem, taps


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def gradients(outputs: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(outputs, inputs, normal(*outputs.shape))


@pytest.mark.parametrize("signs", ["all positive", "some negative"])
@pytest.mark.parametrize("part_bytes", [6_000_000, 70_000])
@pytest.mark.parametrize("count", [5, 2])
def test_stem(signs: str, part_bytes: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "PART_BYTES", part_bytes)
    images = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images[0, :14] = 0  # where all units of a pool are equal, the first is the largest
    kernel, bias, weight, shift = normal(8, 1, 3, 3), normal(8), normal(8).abs() + 0.1, normal(8) * 2
    if signs == "some negative":
        weight[::3] *= -1
    inputs = [tensor.requires_grad_() for tensor in (kernel, bias, weight, shift)]
    before = F.relu(F.conv2d(images[:, None].double() / 255, kernel, bias))
    expected = F.max_pool2d(F.batch_norm(before, None, None, weight, shift, True, eps=1e-3), 2)
    rows, mean, variance = stem(patches(images, torch.float64), taps(kernel, bias), weight, shift, 1e-3)
    given = rows.view(count, 13, 13, 8).permute(0, 3, 1, 2)
    torch.testing.assert_close(given, expected)
    torch.testing.assert_close(mean, before.mean((0, 2, 3)))
    torch.testing.assert_close(variance, before.var((0, 2, 3), correction=0))
    for mine, theirs in zip(gradients(given, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("size", [(13, 13), (12, 12), (7, 10)])
def test_convolution_relu_pool(size: tuple[int, int]) -> None:
    x = normal(3, 4, *size).contiguous(memory_format=torch.channels_last)
    x[0] = 0  # ties: the units of a pool are all equal
    inputs = [tensor.requires_grad_() for tensor in (x, normal(6, 4, 3, 3), normal(6).abs())]
    given, expected = conv_relu_pool(*inputs), F.max_pool2d(F.relu(F.conv2d(*inputs)), 2)
    torch.testing.assert_close(given, expected)
    for mine, theirs in zip(gradients(given, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_convolution_relu() -> None:
    x = normal(3, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    inputs = [tensor.requires_grad_() for tensor in (x, normal(6, 4, 3, 3), normal(6))]
    given, expected = conv_relu(*inputs), F.relu(F.conv2d(*inputs))
    torch.testing.assert_close(given, expected)
    for mine, theirs in zip(gradients(given, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_masked_passes_values_and_gradients_where_it_should(dtype: torch.dtype) -> None:
    x = normal(6, 5).to(dtype).requires_grad_()
    kept = normal(6, 5) > 0
    given = masked(x, -kept.to(bits(x).dtype))
    assert torch.equal(given, torch.where(kept, x, 0))
    (gradient,) = torch.autograd.grad(given, x, torch.ones_like(x))
    assert torch.equal(gradient, kept.to(dtype))
