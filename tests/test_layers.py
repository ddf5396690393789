import numpy as np
import pytest
import torch
from torch import nn

from fmnist.layers import BatchNorm, Dropout, seed_dropout


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


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5, 5)])
def test_moving_statistics_average_biased_variances(shape: tuple[int, ...]) -> None:
    layer = BatchNorm(4)
    x = torch.randn(shape) * 3 + 1
    layer(x)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    torch.testing.assert_close(layer.running_mean, 0.01 * x.mean(axes))
    torch.testing.assert_close(layer.running_var, 0.99 + 0.01 * x.var(axes, correction=0))
