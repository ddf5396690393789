"""The engine for CUDA: `plain.py`'s training, a step of which is recorded once, as a CUDA graph, and then replayed.

A step of so small a network is hundreds of kernels that take microseconds each; to launch them one by one takes a
processor longer than they take a GPU. What is recorded reads and writes the same memory each time, so what changes from
step to step (which images, the rate, an epoch's draws) is copied to where the recorded step finds it.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fmnist.data.dataset import Split
from fmnist.engine import plain
from fmnist.recipe import TrainConfig

WARM_UP = 3
"""Steps before one is recorded: libraries take their memory in the first ones."""


class Recorded(NamedTuple):
    """A step for batches of one size."""

    own: Tensor
    """int64 [B]: where it looks up which images are its own."""
    replay: Callable[[], None]
    gradients: list[Tensor | None]
    """What it leaves for the optimizer's other part, by parameter."""


class GraphedEngine(plain.Engine):
    """Trains any model whose step can be recorded; others, and those with peers, as `plain` does."""

    def __init__(self, config: TrainConfig, classes: int, device: str = "auto") -> None:
        super().__init__(config, classes, device)
        self._pass: plain.Pass | None = None
        self._rate = torch.zeros((), device=self.device, dtype=torch.float64)  # as exact as Python's
        self._recorded: dict[int, Recorded] = {}
        self._recordable = True

    def _begin(self, data: Split, rng: np.random.Generator) -> plain.Pass:
        new, known = super()._begin(data, rng), self._pass
        if known is None or known.images is not new.images:
            self._recorded.clear()
            self._pass = new
            return new
        known.augmented.take(new.augmented)
        known.loss.zero_()
        known.correct.zero_()
        return known

    @property
    def _replays(self) -> bool:
        return self._recordable and self.peers.size == 1

    def _do_batch(self, current: plain.Pass, own: Tensor) -> None:
        if self._replays and len(own) not in self._recorded:
            self._record(current, own)
        if not self._replays:
            super()._do_batch(current, own)
            return
        recorded = self._recorded[len(own)]
        recorded.own.copy_(own)
        self._rate.fill_(self.rate)
        recorded.replay()
        for parameter, gradient in zip(self.model.parameters(), recorded.gradients, strict=True):
            parameter.grad = gradient
        self.step += 1
        self.optimizer.step_adamw(self.step, self.rate)

    def _update(self) -> None:
        if self._replays:
            self.optimizer.step_hidden(self._rate)
        else:
            super()._update()

    def _record(self, current: plain.Pass, own: Tensor) -> None:
        """Record a step, and leave everything as it was. Where a replay does not do what the step does, give it up."""
        own = own.clone()

        def step() -> None:
            super(GraphedEngine, self)._do_batch(current, own)

        before = self._kept(current)
        try:
            with self._own_draws():
                replay, gradients = record(step, list(self.model.parameters()))
                given = self._outcome(replay, current, before, gradients)
                expected = self._outcome(step, current, before)
            self._recordable = all(map(_close, given, expected))
        except RuntimeError:  # the step waits for the device, or takes memory elsewhere
            self._recordable = False
        self._restore(current, before)
        if self._recordable:
            self._recorded[len(own)] = Recorded(own, replay, gradients)

    def _outcome(
        self,
        act: Callable[[], None],
        current: plain.Pass,
        before: Mapping[str, Tensor],
        gradients: Sequence[Tensor | None] = (),
    ) -> list[Tensor]:
        """What `act` changes, and the gradients it leaves (there, or as the parameters')."""
        self._restore(current, before)
        self._rate.fill_(self.config.learning_rate)
        torch.manual_seed(self.config.seed)
        act()
        left = gradients or [parameter.grad for parameter in self.model.parameters()]
        return [*self._kept(current).values(), *(tensor.clone() for tensor in left if tensor is not None)]

    def _changed(self, current: plain.Pass) -> dict[str, Tensor]:
        """All that a step changes."""
        buffers = dict(self.model.named_buffers())  # those too that no checkpoint has
        return {**self.state(), **buffers, "loss": current.loss, "correct": current.correct}

    def _kept(self, current: plain.Pass) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._changed(current).items()}

    @torch.no_grad()
    def _restore(self, current: plain.Pass, kept: Mapping[str, Tensor]) -> None:
        for name, tensor in self._changed(current).items():
            if name in kept:
                tensor.copy_(kept[name])
            else:  # a momentum, which the first step made: it begins at zero
                tensor.zero_()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        super().load_state(tensors)
        self._recorded.clear()  # the optimizer's state lies elsewhere now


def _close(one: Tensor, other: Tensor) -> bool:
    """Whether they differ by roundings alone."""
    difference = torch.linalg.vector_norm((one - other).double())
    return bool(difference <= 1e-3 * torch.linalg.vector_norm(other.double()) + 1e-12)


@contextmanager
def _nothing_waiting() -> Iterator[None]:
    """What waits for the device raises RuntimeError here; within a recording it would spoil PyTorch's generator too."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mode is called a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def record(
    step: Callable[[], None], parameters: Sequence[nn.Parameter]
) -> tuple[Callable[[], None], list[Tensor | None]]:
    """A call that does what `step` does, with the same tensors, and the gradients that it leaves.

    Raises RuntimeError for what can't be recorded.
    """
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                step()
            with _nothing_waiting():
                step()
    finally:
        torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay, [parameter.grad for parameter in parameters]
