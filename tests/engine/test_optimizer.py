import copy
import math

import pytest
import torch
from torch import nn

from fmnist.engine.optimizer import AdamW


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
