"""A model that is loaded and known to answer as it did when it was registered."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist.errors import Failure
from fmnist.files import sha256_of
from fmnist.predictor import Predictor
from fmnist.serve.releases import Release
from fmnist.tracking.records import decode

TOLERANCE = 1e-3
"""By how much a probability may differ from the one on record: other processors round otherwise."""


@dataclass(frozen=True)
class Model:
    """What answers. Immutable: a request keeps the one that it began with."""

    release: Release
    predictor: Predictor
    """Of one thread: for a few images it is as quick as several, and many images are split over several calls."""
    confusion: list[list[int]] | None = None
    """On the test images, [C][C]: rows are the true classes, columns the predicted ones."""

    @property
    def version(self) -> str:
        return self.release.version

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.predictor.class_names


def load_model(release: Release, path: Path, golden: Any, confusion: Any) -> Model:
    """Load and examine it. `golden`: `golden_batch`'s images and answers, if it has one. Raises Failure or UserError.

    What it raises says why the model must not answer.
    """
    who = f"version {release.version}"
    if not release.sha256:
        raise Failure(who, "has no SHA-256 on record, so it was not registered by fmnist; promote one that was")
    if (found := sha256_of(path)) != release.sha256:
        raise Failure(
            who, f"its file has the SHA-256 {found[:12]}, on record is {release.sha256[:12]}; promote another"
        )
    model = Model(release, Predictor(path, threads=1), confusion)
    if release.has_golden or golden is not None:
        _check_answers(who, model, golden)
    blank = np.zeros((1, 28, 28), np.uint8)
    if not np.isfinite(model.predictor.probabilities(blank)).all():
        raise Failure(who, "answers a blank picture with what is no number; promote another")
    return model


def _check_answers(who: str, model: Model, golden: Any) -> None:
    try:
        images = np.stack([decode(text) for text in golden["images"]])
        expected: NDArray[np.float32] = np.asarray(golden["probabilities"], np.float32)
    except (TypeError, ValueError, KeyError) as error:
        raise Failure(
            who, "its golden batch (report/golden.json of its run) is gone or damaged; promote another"
        ) from error
    given = model.predictor.probabilities(images)
    if given.shape != expected.shape or not np.allclose(given, expected, atol=TOLERANCE, rtol=0):
        raise Failure(who, "answers its golden batch otherwise than when it was registered; promote another")
