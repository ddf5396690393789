import csv

import numpy as np
import pytest
from sklearn import metrics

from fmnist.scores import class_scores, class_table, confusion_matrix, scores


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, 7, 500), rng.integers(0, 7, 500)
    predicted[rng.random(500) < 0.6] = 0  # lopsided, and class 6 is never there
    true[true == 6] = predicted[predicted == 6] = 5
    confusion = confusion_matrix(true, predicted, 7)
    np.testing.assert_array_equal(confusion[:6, :6], metrics.confusion_matrix(true, predicted))
    expected = metrics.precision_recall_fscore_support(true, predicted, average="macro", zero_division=0)
    found = scores(confusion, 0.5)
    np.testing.assert_allclose(found[2:], expected[:3])
    assert found.accuracy == pytest.approx(metrics.accuracy_score(true, predicted))
    assert found.loss == 0.5
    each = metrics.precision_recall_fscore_support(true, predicted, labels=range(7), zero_division=0)
    np.testing.assert_allclose(class_scores(confusion), each)


def test_a_class_that_is_never_predicted_scores_zero() -> None:
    confusion = confusion_matrix([0, 0, 1, 1], [0, 0, 0, 0], 2)
    assert scores(confusion, 0).precision == pytest.approx(0.25)
    assert scores(confusion, 0).recall == pytest.approx(0.5)


def test_nothing_scores_zero_and_does_not_divide() -> None:
    assert scores(np.zeros((3, 3), np.int64), 0.0) == (0, 0, 0, 0, 0)


def test_a_class_name_may_hold_what_csv_means_otherwise() -> None:
    names = ['15" laptop', "a, b"]
    rows = list(csv.reader(class_table([[3, 1], [0, 2]], names).splitlines()))
    assert [row[0] for row in rows] == ["class", *names]
    assert {len(row) for row in rows} == {5}
