"""What a training does to its images before the network sees them: mirrors them, moves them, makes a hole in them.

Cutout is DeVries and Taylor's (2017): the hole's centre lies anywhere, so the hole may lie half outside.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fmnist.data.formats import SIDE
from fmnist.recipe import TrainConfig


class Augmentation:
    """The changes to an epoch's images, drawn at once: an image's do not depend on the batch or the worker it is in."""

    def __init__(self, config: TrainConfig, rng: np.random.Generator, count: int, device: torch.device) -> None:
        def drawn(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(device)

        self.shift, self.cutout = config.shift, config.cutout
        mirrored = rng.random(count) < 0.5  # drawn in any case, as what is drawn after it must not depend on a field
        self.mirrored = drawn(mirrored) if config.flip else None
        self.starts = drawn(rng.integers(0, 2 * self.shift + 1, (2, count))) if self.shift else None
        self.centres = drawn(rng.integers(0, SIDE, (2, count))) if self.cutout else None
        self._pixels = torch.arange(SIDE, device=device)

    def take(self, other: "Augmentation") -> None:
        """Do as `other` does, which was drawn for another epoch of as many images; the memory stays where it is."""
        for own, drawn in zip(self._draws(), other._draws(), strict=True):
            own.copy_(drawn)

    def _draws(self) -> list[Tensor]:
        return [tensor for tensor in (self.mirrored, self.starts, self.centres) if tensor is not None]

    def __call__(self, images: Tensor, own: Tensor) -> Tensor:
        """`images`, uint8 [B, 28, 28], changed; `own`, int64 [B], says which of the epoch's they are."""
        if self.mirrored is not None:
            images = torch.where(self.mirrored[own, None, None], images.flip(-1), images)
        if self.starts is not None:
            places = F.pad(images, (self.shift,) * 4).unfold(1, SIDE, 1).unfold(2, SIDE, 1)
            rows, columns = self.starts[:, own]
            images = places[torch.arange(len(own), device=own.device), rows, columns]
        if self.centres is not None:
            first = self.centres[:, own, None] - self.cutout // 2
            rows, columns = (self._pixels >= first) & (self._pixels < first + self.cutout)
            images = images.masked_fill(rows[:, :, None] & columns[:, None, :], 0)
        return images
