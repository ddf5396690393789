"""AdamW with Keras's epsilon, in one call a step.

PyTorch's own optimizers import its compiler, which takes a second or more, and handle each step in Python.
"""

import math

import torch
from torch import Tensor, nn

BETAS = 0.9, 0.999
EPSILON = 1e-7


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

    @torch.no_grad()
    def step(self, number: int, rate: float) -> None:
        """Update the parameters that have gradients. `number`: of this step, from 1; `rate`: its step size."""
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
