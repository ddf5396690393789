"""A model and a split -> scores."""

import numpy as np
from numpy.typing import NDArray

from fmnist.data.dataset import Dataset, Split
from fmnist.errors import UserError
from fmnist.predictor import Predictor
from fmnist.scores import Evaluation, confusion_matrix


def evaluate_model(predictor: Predictor, split: Split) -> Evaluation:
    """What the model does on the whole split. Raises UserError where the split has classes that it does not know."""
    classes = len(predictor.class_names)
    if (highest := int(split.labels.max(initial=0))) >= classes:
        raise UserError(
            predictor.path, f"knows {classes} classes, and the data have a class {highest}; give its own data"
        )
    return score_answers(predictor.probabilities(np.asarray(split.images)), split)


def other_classes(predictor: Predictor, data: Dataset) -> str | None:
    """What to tell where the model was not trained on these data's classes: its scores then say little."""
    if predictor.class_names == data.class_names:
        return None
    return f"the model knows {', '.join(predictor.class_names)}; the data have {', '.join(data.class_names)}"


def score_answers(probabilities: NDArray[np.float32], split: Split) -> Evaluation:
    """The same from a model's answers, probabilities [N, C]."""
    of_truth = probabilities[np.arange(len(split)), split.labels]
    loss = -float(np.log(np.maximum(of_truth, np.finfo(np.float32).tiny)).mean())
    return Evaluation(loss, confusion_matrix(split.labels, probabilities.argmax(1), probabilities.shape[1]))
