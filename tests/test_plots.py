import io

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from fmnist.data.dataset import Dataset, Split
from fmnist.plots import LINES, Mistake, as_png, confusion_picture, curves_picture, mistakes_picture, samples_picture


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
    as_png(confusion_picture(np.array([[3, 1], [0, 0]]), ["a", "$5_$"], ""))  # no formula


@pytest.mark.parametrize("count", [0, 1, 7])
def test_mistakes_say_what_is_and_what_was_said(count: int) -> None:
    mistakes = [Mistake(np.zeros((28, 28), np.uint8), "Shirt", "Coat", 0.987)] * count
    figure = mistakes_picture(mistakes, "title")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["Shirt\n→ Coat 99%"] * count
    assert as_png(figure).startswith(b"\x89PNG")


def scores(*losses: float) -> list[dict[str, float]]:
    return [
        {"train_loss": loss + 0.1, "val_loss": loss, "train_accuracy": 1 - loss, "val_accuracy": 0.95 - loss}
        for loss in losses
    ]


def test_curves_show_both_scores_of_both_splits_by_epoch() -> None:
    figure = curves_picture({"a run": scores(0.5, 0.25)}, "a title")
    loss, accuracy = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in loss.lines}
    assert drawn == {"validation": ([1, 2], [0.5, 0.25]), "training": ([1, 2], [0.6, 0.35])}
    np.testing.assert_allclose([line.get_ydata() for line in accuracy.lines], [[0.45, 0.7], [0.5, 0.75]])
    assert figure.get_suptitle() == "a title"


@pytest.mark.parametrize("count", [1, 2, 9])
def test_lines_can_be_told_apart(count: int) -> None:
    figure = curves_picture({f"run {n}": scores(0.5, 0.4, 0.3)[: n % 3 + 1] for n in range(count)}, "")
    lines = figure.axes[0].lines
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == len({line.get_label() for line in lines}) == 2 * count
    assert {colour for colour, _, _ in looks} <= set(LINES)
    assert (len({colour for colour, _, _ in looks}) == 2) == (count <= 2)  # alone, a run has a colour for each split
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == 2 * count


@pytest.mark.parametrize("epochs", [None, 1, 14])
def test_curves_before_the_first_epoch_are_a_frame_to_be_filled(epochs: int | None) -> None:
    figure = curves_picture({"a run": []}, "", epochs)
    assert figure.axes[0].get_xlim() == (0.5, (epochs or 2) + 0.5)
    assert figure.axes[1].get_ylim() == (0, 1)
    as_png(figure)


def test_epochs_are_whole_numbers_on_the_axis() -> None:
    figure = curves_picture({"a run": scores(0.5, 0.4)}, "")
    assert all(place == int(place) for place in figure.axes[0].get_xticks())


def tiles(figure: object, classes: int, each: int) -> list[list[object]]:
    """The images of a samples picture, by row; None where there is none."""
    grid = np.asarray(figure.axes[0].images[0].get_array().filled(np.nan))  # type: ignore[attr-defined]
    cells = [[grid[30 * r : 30 * r + 28, 30 * c : 30 * c + 28] for c in range(each)] for r in range(classes)]
    return [[None if np.isnan(cell).all() else cell for cell in row] for row in cells]


def test_samples_are_of_the_class_that_they_stand_beside(dataset: Dataset) -> None:
    names = [f"class {n}" for n in range(10)]
    figure = samples_picture(dataset.train, names, "a title", each=5)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert axes.get_title() == "a title"
    for number, row in enumerate(tiles(figure, 10, 5)):
        own = dataset.train.images[dataset.train.labels == number]
        places = [next(i for i, image in enumerate(own) if np.array_equal(image, tile)) for tile in row]
        assert len(set(places)) == 5
        assert max(places) - min(places) > len(own) / 2  # from all over the class, whose images are sorted


def test_a_class_with_few_images_or_none_leaves_places_empty() -> None:
    split = Split(np.full((3, 28, 28), 7, np.uint8), np.array([0, 2, 2]))
    figure = samples_picture(split, ["a", "b", "c"], "", each=4)
    assert [sum(tile is not None for tile in row) for row in tiles(figure, 3, 4)] == [1, 0, 2]
    as_png(figure)


def test_a_notebook_shows_a_figure_as_a_picture_without_pyplot() -> None:
    figure = curves_picture({"a run": scores(0.5)}, "")
    shown, _ = DisplayFormatter().format(figure)
    assert Image.open(io.BytesIO(shown["image/png"])).size == (1000, 420)
