from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import log_loss

from fmnist.data.dataset import Dataset, Split
from fmnist.errors import UserError
from fmnist.evaluation import evaluate_model, other_classes
from fmnist.predictor import Predictor
from fmnist.run import Run


def test_loss_is_scikit_learns_and_the_confusion_counts_every_image(finished: Run, dataset: Dataset) -> None:
    predictor = Predictor(finished.model)
    found = evaluate_model(predictor, dataset.test)
    probabilities = predictor.probabilities(dataset.test.images).astype(float)
    probabilities /= probabilities.sum(1, keepdims=True)
    assert found.loss == pytest.approx(log_loss(dataset.test.labels, probabilities, labels=range(10)), rel=1e-5)
    assert found.confusion.sum() == 100
    assert found.confusion.sum(1).tolist() == [10] * 10
    assert found.scores.accuracy == pytest.approx((probabilities.argmax(1) == dataset.test.labels).mean())


def test_a_class_that_the_model_does_not_know(finished: Run, dataset: Dataset) -> None:
    strange = Split(dataset.test.images[:2], np.array([0, 10]))
    with pytest.raises(UserError, match="knows 10 classes, and the data have a class 10; give its own data"):
        evaluate_model(Predictor(finished.model), strange)


def test_data_of_other_classes_are_told(finished: Run, dataset: Dataset) -> None:
    predictor = Predictor(finished.model)
    assert other_classes(predictor, dataset) is None
    told = other_classes(predictor, replace(dataset, class_names=("rows", "columns")))
    assert told == f"the model knows {', '.join(dataset.class_names)}; the data have rows, columns"
