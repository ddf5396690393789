"""One confusion matrix of a whole split -> every score.

Precision, recall and F1 are scikit-learn's with `zero_division=0`, averaged over the classes ("macro").
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Scores(NamedTuple):
    """A split's scores; all but `loss` are shares between 0 and 1."""

    loss: float
    """Mean cross-entropy, in nats."""
    accuracy: float
    precision: float
    recall: float
    f1: float


class ClassScores(NamedTuple):
    """Per-class scores, each an array [C]."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    """How many images truly are of the class."""


class Evaluation(NamedTuple):
    """What a model did on a split."""

    loss: float
    """Mean cross-entropy, in nats."""
    confusion: NDArray[np.int64]
    """[C, C] counts: rows are the true classes, columns the predicted ones."""

    @property
    def scores(self) -> Scores:
        return scores(self.confusion, self.loss)


def confusion_matrix(true: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Counts [C, C]: rows are the true classes, columns the predicted ones. Both inputs are class numbers [N]."""
    pairs = np.asarray(true, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_scores(confusion: NDArray[np.int64]) -> ClassScores:
    """Each class's scores from a confusion matrix [C, C]."""
    hits = np.diagonal(confusion).astype(np.float64)
    support, predicted = confusion.sum(1), confusion.sum(0)
    precision = _ratio(hits, predicted)
    recall = _ratio(hits, support)
    return ClassScores(precision, recall, _ratio(2 * hits, support + predicted), support)


def class_table(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Each class's scores as CSV."""
    each = class_scores(np.asarray(confusion))
    quoted = [name.replace('"', '""') for name in names]
    rows = [f'"{name}",{p:.4f},{r:.4f},{f:.4f},{n}' for name, p, r, f, n in zip(quoted, *each, strict=True)]
    return "\n".join(["class,precision,recall,f1,images", *rows, ""])


def scores(confusion: NDArray[np.int64], loss: float) -> Scores:
    """The scores of a split from its confusion matrix [C, C] and its mean loss."""
    each = class_scores(confusion)
    accuracy = float(np.trace(confusion) / max(confusion.sum(), 1))
    # A class that is neither there nor predicted says nothing: scikit-learn leaves it out of the mean too.
    seen = (confusion.sum(0) + confusion.sum(1)) > 0
    means = (float(values[seen].mean()) if seen.any() else 0.0 for values in each[:3])
    return Scores(loss, accuracy, *means)


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
