"""The training loop, written to be read: one path for CPU and CUDA.

The whole data set lies on the device as bytes; a step gathers a batch, augments it, and does forward, backward
and update. All randomness follows from (seed, epoch), so any epoch can be done again from the state
before it, to the bit.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmnist.data.dataset import Split
from fmnist.engine.augment import Augmentation
from fmnist.engine.optimizer import OPTIMIZERS
from fmnist.engine.peers import Alone
from fmnist.errors import Failure, UserError, one_line
from fmnist.layers import FlipAveraged, seed_dropout
from fmnist.models import build_model
from fmnist.recipe import Precision, TrainConfig
from fmnist.scores import Evaluation, confusion_matrix

EVALUATION_BATCH = 1000


class EpochResult(NamedTuple):
    """What an epoch of training gave, over all its images, as it went (dropout on)."""

    loss: float
    accuracy: float
    images: int
    seconds: float


class Pass(NamedTuple):
    """What the steps of an epoch take, and what they add to. All of it is on the device."""

    images: Tensor
    labels: Tensor
    augmented: Augmentation
    loss: Tensor
    """Float [], summed over images."""
    correct: Tensor
    """int64 [], images."""


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` -> a device that is there, or UserError."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {name!r}", "there is no such device; choose auto, cpu or cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("device 'cuda'", "PyTorch sees no CUDA device here; choose auto or cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself; in software it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(torch.cpu.get_capabilities().get(f"{unit}_bf16", False) for unit in ("avx512", "amx"))


def choose_precision(name: Precision, device: torch.device) -> torch.dtype:
    """`auto`, `fp32` or `bf16` -> the type in which products are computed; weights are always float32."""
    bf16 = name == "bf16" or (name == "auto" and has_bf16(device))
    return torch.bfloat16 if bf16 else torch.float32


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of step 0 <= `step` < `steps` of a whole training."""
    if config.schedule == "constant":
        return config.learning_rate
    done, climb = (step + 0.5) / steps, 0.2
    if done < climb:
        return config.learning_rate * (0.04 + 0.96 * done / climb)
    return config.learning_rate * (1 + math.cos(math.pi * (done - climb) / (1 - climb))) / 2


class Engine:
    """One model in training. `state()` and `load_state()` move all of it as named tensors."""

    workers = 1
    """Processes that do the epochs' steps."""
    waited = 0.0
    """Seconds until they were there."""

    def __init__(self, config: TrainConfig, classes: int, device: str = "auto") -> None:
        self.config = config
        self.device = choose_device(device)
        self.precision = choose_precision(config.precision, self.device)
        with self._own_draws():
            torch.manual_seed(config.seed)
            model = build_model(config.model, classes, config.dropout)
        if config.average_flips:
            model = FlipAveraged(model)
        self.model: nn.Module = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = OPTIMIZERS[config.optimizer](self.model, config.weight_decay)
        self.step = 0
        self.rate = 0.0
        self.peers = Alone()
        self._on_device: list[tuple[Split, Tensor, Tensor]] = []

    @contextmanager
    def at_work(self, data: Split) -> Iterator[None]:
        """Around the epochs over `data`: what they need beside this process is there. This engine needs nothing."""
        yield

    def train_epoch(self, data: Split, epoch: int, on_step: Callable[[int], None] = lambda images: None) -> EpochResult:
        """Train on every image once, in an order that follows from (seed, epoch).

        `on_step` is called after each step with the number of images so far. With peers each does its part: the
        losses and accuracies that they give are shares of the whole's, and add up to it.
        """
        started = time.perf_counter()
        self.model.train()
        done = 0
        with self._randomness(epoch) as rng:
            order = torch.from_numpy(rng.permutation(len(data))).to(self.device)
            current = self._begin(data, rng)
            fewest = 2 * self.peers.size  # a lone image has no batch statistics
            batches = [batch for batch in torch.split(order, self.config.batch_size) if len(batch) >= fewest]
            first = (epoch - 1) * len(batches)  # not the steps done: with other peers, other images were left out
            for number, batch in enumerate(batches, first):
                self.rate = learning_rate(self.config, number, len(batches) * self.config.epochs)
                self._do_batch(current, self.peers.part(batch))
                done += len(batch)
                on_step(done)
            loss, correct = float(current.loss) / done, int(current.correct) / done
        return EpochResult(loss, correct, done, time.perf_counter() - started)

    def _begin(self, data: Split, rng: np.random.Generator) -> Pass:
        images, labels = self._resident(data)
        augmented = Augmentation(self.config, rng, len(data), self.device)
        zero = torch.zeros((), device=self.device)
        return Pass(images, labels, augmented, zero, torch.zeros_like(zero, dtype=torch.int64))

    def _do_batch(self, current: Pass, own: Tensor) -> None:
        """One step. own: int64 [B], the images to do it with."""
        images, labels = current.augmented(current.images[own], own), current.labels[own]
        logits, loss = self._train_step(images, labels)
        current.loss.add_(loss * len(own))
        current.correct.add_((logits.argmax(1) == labels).sum())

    @contextmanager
    def _randomness(self, epoch: int) -> Iterator[np.random.Generator]:
        """All that is drawn within follows from (seed, epoch): by what is given, the same for all peers, and by the
        model's own layers, ours and PyTorch's, where each draws its own."""
        seed, stream = (self.config.seed, epoch), self.peers.stream
        seed_dropout(self.model, (*seed, 1, *stream))
        with self._own_draws(), self._exactly():
            torch.manual_seed(int(np.random.SeedSequence((*seed, 2, *stream)).generate_state(1)[0]))
            yield np.random.default_rng(seed)

    def _own_draws(self) -> AbstractContextManager[None]:
        """PyTorch's generators are afterwards as they were."""
        return torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])

    def _exactly(self) -> AbstractContextManager[None]:
        """On a GPU, convolutions that give the same each time; of float32 as float32, which is not cuDNN's default."""
        if self.device.type != "cuda":
            return nullcontext()
        return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)

    def _train_step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One update. images: uint8 [B, 28, 28]; gives the logits [B, C] and the loss of the labels as they are."""
        self.optimizer.zero_grad()
        logits = self._forward(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self.peers.sum_gradients(self.model)
        self._update()
        return logits.detach(), F.cross_entropy(logits.detach(), labels)

    def _update(self) -> None:
        self.step += 1
        self.optimizer.step(self.step, self.rate)

    def _forward(self, images: Tensor) -> Tensor:
        x = images.unsqueeze(1).float() / 255
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16):
            logits: Tensor = self.model(x.to(memory_format=torch.channels_last))
        return logits.float()

    def _resident(self, data: Split) -> tuple[Tensor, Tensor]:
        """The images and labels on the device, where those of training and of validation stay."""
        for known, images, labels in self._on_device:
            if known is data:
                return images, labels
        images, labels = torch.tensor(data.images, device=self.device), torch.tensor(data.labels, device=self.device)
        self._on_device = [*self._on_device[-1:], (data, images, labels)]
        return images, labels

    @torch.inference_mode()
    def evaluate(self, data: Split) -> Evaluation:
        """Loss and confusion matrix over the whole of `data`, dropout off."""
        self.model.eval()
        images, labels = self._resident(data)
        with self._exactly():
            logits = torch.cat([self._forward(batch) for batch in torch.split(images, EVALUATION_BATCH)])
        loss = float(F.cross_entropy(logits, labels))
        predicted = logits.argmax(1).cpu().numpy()
        return Evaluation(loss, confusion_matrix(data.labels, predicted, logits.shape[1]))

    def state(self) -> dict[str, Tensor]:
        """All that the next epoch depends on, by name: `model/…`, `optimizer/…/…` and `step`. No copies."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for part, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{part}/{name}"] = value
        return tensors | {"step": torch.tensor(self.step)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state()` gave. Raises Failure where that was of another model."""
        try:
            self.load_weights({n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")})
        except RuntimeError as error:
            raise Failure(
                f"model {self.config.model!r}",
                f"is not the one that was saved ({one_line(error)[:200]}); undo what was changed in it, or start anew",
            ) from error
        self.optimizer.state.clear()
        for name, parameter in self.model.named_parameters():
            parts = [n.split("/")[1] for n in tensors if n.startswith("optimizer/") and n.endswith(f"/{name}")]
            values = {part: self._like(parameter, tensors[f"optimizer/{part}/{name}"]) for part in parts}
            if values:  # there are none before the first step
                self.optimizer.state[parameter] = values
        self.step = int(tensors["step"])

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the model's weights and moving statistics."""
        self.model.load_state_dict(dict(weights))

    def _like(self, parameter: Tensor, value: Tensor) -> Tensor:
        """`value` on the device, and where it has the parameter's shape, laid out in memory as that is."""
        if value.shape != parameter.shape:
            return value.to(self.device)
        return torch.empty_like(parameter, requires_grad=False).copy_(value)
