import io

import numpy as np
import pytest
from PIL import Image

from fmnist.plots import Mistake, as_png, confusion_picture, mistakes_picture


@pytest.mark.parametrize(("classes", "numbers"), [(2, 2), (10, 10), (30, 0)])
def test_a_matrix_shows_its_counts_while_they_can_be_read(classes: int, numbers: int) -> None:
    confusion = np.diag(np.arange(1, classes + 1))
    figure = confusion_picture(confusion, [f"class {n}" for n in range(classes)], "a title")
    (axes,) = figure.axes
    assert sorted(int(text.get_text()) for text in axes.texts) == list(range(1, numbers + 1))
    assert [label.get_text() for label in axes.get_yticklabels()][1] == "class 1"
    assert axes.images[0].get_array()[1, 1] == 1  # a share of the row, whatever its size
    assert Image.open(io.BytesIO(as_png(figure))).size == (800, 740)


def test_a_class_without_images_is_no_division_by_zero() -> None:
    as_png(confusion_picture(np.array([[3, 1], [0, 0]]), ["a", "b"], ""))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_mistakes_say_what_is_and_what_was_said(count: int) -> None:
    mistakes = [Mistake(np.zeros((28, 28), np.uint8), "Shirt", "Coat", 0.987)] * count
    figure = mistakes_picture(mistakes, "title")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["Shirt\n→ Coat 99%"] * count
    assert as_png(figure).startswith(b"\x89PNG")
