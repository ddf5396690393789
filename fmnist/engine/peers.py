"""Who trains a model: one process, or several, each with a part of every batch, which all make the same step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Alone:
    """One process; it has the whole of every batch."""

    size = 1
    stream: tuple[int, ...] = ()
    """What sets the draws within the model apart from those of others."""

    def part(self, batch: Tensor) -> Tensor:
        """Of a batch's indices [B] those of this process, for the next step."""
        return batch

    def sum_gradients(self, model: nn.Module) -> None:
        """Make the gradients of the own part's mean loss those of the whole batch's."""


class Group(Alone):
    """One of the processes of a torch.distributed process group (or backend), on one kind of device.

    Batch statistics are of the own part; the moving ones are averaged when an epoch ends.
    """

    def __init__(self, group: Any, rank: int, size: int) -> None:
        self._group, self.rank, self.size = group, rank, size
        self.stream = (rank,)
        self._share = 1.0

    def part(self, batch: Tensor) -> Tensor:
        """Parts differ by one image at most."""
        own = torch.tensor_split(batch, self.size)[self.rank]
        self._share = len(own) / len(batch)
        return own

    def sum_gradients(self, model: nn.Module) -> None:
        """By one message for all of them."""
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        _as_one(gradients, lambda flat: self._sum(flat.mul_(self._share)))

    def align(self, state: Mapping[str, Tensor]) -> None:
        """Give all the first process's values, whose machine may round otherwise than theirs.

        They go by their names: a state that was loaded has them in another order in each process.
        """
        tensors = _floating(state[name] for name in sorted(state))
        _as_one(tensors, lambda flat: self._group.broadcast([flat]).wait())

    def average(self, tensors: Iterable[Tensor]) -> None:
        _as_one(_floating(tensors), lambda flat: self._sum(flat.div_(self.size)))

    def total(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The sums over all processes."""
        sums = torch.tensor(values, dtype=torch.float64, device=device)
        self._sum(sums)
        return [float(value) for value in sums]

    def _sum(self, flat: Tensor) -> None:
        self._group.allreduce([flat]).wait()


def _floating(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.is_floating_point()]


@torch.no_grad()
def _as_one(tensors: Sequence[Tensor], change: Callable[[Tensor], object]) -> None:
    """Change all the tensors' values as one flat tensor's."""
    if not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    change(flat)
    for tensor, values in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view(tensor.shape))
