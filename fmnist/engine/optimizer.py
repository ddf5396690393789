"""AdamW with Keras's epsilon, in one call a step, and Muon for the kernels of hidden layers.

PyTorch's own optimizers import its compiler, which takes a second or more, and handle each step in Python.
"""

import math

import torch
from torch import Tensor, nn

BETAS = 0.9, 0.999
EPSILON = 1e-7
MOMENTUM = 0.95
FURTHER = 10
QUINTIC = 3.4445, -4.7750, 2.0315
"""Coefficients a, b, c of x -> ax + bx^3 + cx^5, which brings singular values of 0 to 1 near 1 in five rounds."""


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019) of kernels; biases and norms are free.

    `state` maps a parameter to its moving averages, as PyTorch names them; it is filled by the first step.
    """

    def __init__(self, module: nn.Module, weight_decay: float) -> None:
        parameters: list[Tensor] = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.groups = [
            ([parameter for parameter in parameters if parameter.dim() > 1], weight_decay),
            ([parameter for parameter in parameters if parameter.dim() <= 1], 0.0),
        ]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameters, _ in self.groups:
            for parameter in parameters:
                parameter.grad = None

    def step(self, number: int, rate: float) -> None:
        """Update the parameters that have gradients. `number`: of this step, from 1; `rate`: its learning rate."""
        self.step_adamw(number, rate)
        self.step_hidden(rate)

    def step_hidden(self, rate: float | Tensor) -> None:
        """The part of a step that a CUDA graph can hold, as all that changes of it from step to step is the rate."""

    @torch.no_grad()
    def step_adamw(self, number: int, rate: float) -> None:
        """The other part."""
        for parameters, weight_decay in self.groups:
            moved = [parameter for parameter in parameters if parameter.grad is not None]
            if not moved:
                continue
            states = [self._state_of(parameter) for parameter in moved]
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                moved,
                [parameter.grad for parameter in moved if parameter.grad is not None],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=weight_decay,
                # Keras adds epsilon before it corrects the second moment's bias, PyTorch after.
                eps=EPSILON / math.sqrt(1 - BETAS[1] ** number),
                amsgrad=False,
                maximize=False,
            )

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            self.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return self.state[parameter]


class Muon(AdamW):
    """Muon (Jordan, 2024) for every kernel but the last, which makes the logits; AdamW for that and for the rest.

    A kernel [out, ...], seen as a matrix [out, in], moves by its momentum made orthogonal, FURTHER times as far as
    AdamW's learning rate says, so that one learning rate, and one decay, does for both.
    """

    def __init__(self, module: nn.Module, weight_decay: float) -> None:
        super().__init__(module, weight_decay)
        (kernels, _), others = self.groups
        self.hidden, self.weight_decay = kernels[:-1], weight_decay
        self.groups = [(kernels[-1:], weight_decay), others]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        super().zero_grad()
        for parameter in self.hidden:
            parameter.grad = None

    @torch.no_grad()
    def step_hidden(self, rate: float | Tensor) -> None:
        """Move the hidden kernels that have gradients."""
        for parameter in self.hidden:
            if parameter.grad is None:
                continue
            momentum = self.state.setdefault(parameter, {"momentum": torch.zeros_like(parameter)})["momentum"]
            momentum.lerp_(parameter.grad, 1 - MOMENTUM)
            ahead = parameter.grad.lerp(momentum, MOMENTUM)  # Nesterov's
            update = orthogonal(ahead.flatten(1))
            parameter.mul_(1 - rate * self.weight_decay)
            tall = max(1.0, update.shape[0] / update.shape[1])
            parameter.sub_(update.view_as(parameter) * (FURTHER * rate * math.sqrt(tall)))


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with singular values of about 1 (0.7 to 1.2) in place of its own, but for those that are next to none.

    The rounds are done on the Gram matrix of the shorter side, a polynomial of which the whole is multiplied by at the
    end: two fifths of the multiplications where one side is nine times the other.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.t()).t()
    wide = matrix / (matrix.norm() + EPSILON)
    gram = wide @ wide.t()
    whole = factor = _factor(gram)
    for _ in range(4):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        whole = factor @ whole
    product: Tensor = whole @ wide
    return product


def _factor(gram: Tensor) -> Tensor:
    """By what a round multiplies the matrix whose Gram matrix this is."""
    a, b, c = QUINTIC
    factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal().add_(a)
    return factor


OPTIMIZERS = {"adamw": AdamW, "muon": Muon}
