import copy
import math

import pytest
import torch
from torch import nn

from fmnist.engine.optimizer import FURTHER, AdamW, Muon, orthogonal


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))


def gradients(module: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_is_pytorchs_adamw_with_keras_epsilon(weight_decay: float) -> None:
    ours, theirs = network(), network()
    optimizer = AdamW(ours, weight_decay)
    kernels = [p for p in theirs.parameters() if p.dim() > 1]
    others = [p for p in theirs.parameters() if p.dim() <= 1]
    reference = torch.optim.AdamW(
        [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0}]
    )
    for number in range(1, 6):
        gradients(ours, number)
        gradients(theirs, number)
        for group in reference.param_groups:
            group["lr"], group["eps"] = 0.01 / number, 1e-7 / math.sqrt(1 - 0.999**number)
        reference.step()
        optimizer.step(number, 0.01 / number)
    for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, yours)
        for part, value in reference.state[yours].items():
            torch.testing.assert_close(optimizer.state[mine][part], value)


def test_what_has_no_gradient_or_wants_none_stays_as_it_is() -> None:
    module = network()
    before = copy.deepcopy(module)
    module[0].requires_grad_(False)
    optimizer = AdamW(module, 0.1)
    module[3].weight.grad = torch.ones_like(module[3].weight)
    optimizer.step(1, 0.1)
    for (name, now), then in zip(module.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(now, then) == (name != "3.weight")
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in module.parameters())


def test_muon_is_pytorchs_for_hidden_kernels_and_adamw_for_the_rest() -> None:
    torch.manual_seed(3)
    ours = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 12), nn.ReLU(), nn.Linear(12, 3))
    theirs = copy.deepcopy(ours)
    optimizer = Muon(ours, 0.1)
    parts = list(theirs.parameters())
    hidden = torch.optim.Muon([parts[0], parts[2]], weight_decay=0.1 / FURTHER)
    others = AdamW(nn.Sequential(theirs[4]), 0.1), AdamW(nn.ParameterList([parts[1], parts[3]]), 0.0)
    before = [parameter.clone() for parameter in parts]
    for number in range(1, 6):
        gradients(ours, number)
        gradients(theirs, number)
        rate = 0.01 / number
        hidden.param_groups[0]["lr"] = rate * FURTHER
        hidden.step()
        for other in others:
            other.step(number, rate)
        optimizer.step(number, rate)
    for mine, yours, start in zip(ours.parameters(), parts, before, strict=True):
        moved, expected = (mine - start).flatten(), (yours - start).flatten()
        # PyTorch makes its kernels' steps orthogonal in bfloat16, which has three decimal digits
        assert (moved - expected).norm() < 0.02 * expected.norm()


def test_a_kernel_of_a_convolution_is_moved_as_a_matrix_whatever_its_layout() -> None:
    plain = network()
    laid_out = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    extended = [nn.Sequential(*module, nn.Linear(3, 3)) for module in (plain, laid_out)]
    optimizers = [Muon(module, 0.1) for module in extended]
    torch.manual_seed(5)
    for one, other in zip(*(module.parameters() for module in extended), strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
        other.data.copy_(one.data)
    for optimizer in optimizers:
        optimizer.step(1, 0.01)
    for one, other in zip(*(module.parameters() for module in extended), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("shape", [(32, 9), (64, 288), (128, 128)])
def test_orthogonal_brings_singular_values_near_one_and_keeps_their_vectors(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64) * torch.logspace(0, -1, shape[1], dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / matrix.norm()
    for _ in range(5):  # what the rounds do to a singular value, by itself
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    given = orthogonal(matrix.float())
    torch.testing.assert_close(given.double(), left @ torch.diag(values) @ right, atol=1e-4, rtol=0)
    assert 0.5 < torch.linalg.svdvals(given).max() < 1.25
    assert orthogonal(torch.zeros(4, 3)).abs().max() == 0
