"""Numbers -> pictures, in one style: large type for thumbnails, colours that colour-blind people tell apart."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = "cividis"
DPI = 100


class Mistake(NamedTuple):
    """A picture that was taken for something else."""

    image: NDArray[np.uint8]
    """[28, 28]."""
    true: str
    predicted: str
    probability: float
    """Of the predicted class."""


def confusion_picture(confusion: NDArray[np.int64], names: Sequence[str], title: str) -> "Figure":
    """A confusion matrix [C, C]: colour is a row's share, so rare classes show as well; numbers are counts."""
    from matplotlib.figure import Figure

    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(8, 7.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap=COLOURS, vmin=0, vmax=1)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=13)
    axes.set_yticks(places, names, fontsize=13)
    axes.set_xlabel("predicted", fontsize=14)
    axes.set_ylabel("true", fontsize=14)
    axes.set_title(title, fontsize=16)
    if len(names) <= 20:  # more numbers than that cannot be read
        for row, column in np.argwhere(confusion):
            colour = "black" if shares[row, column] > 0.5 else "white"
            text = f"{confusion[row, column]:,}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=12)
    return figure


def mistakes_picture(mistakes: Sequence[Mistake], title: str, columns: int = 6) -> "Figure":
    """The pictures that were most surely taken for something else, with what they are and what they were taken for."""
    from matplotlib.figure import Figure

    rows = max(1, -(-len(mistakes) // columns))
    figure = Figure(figsize=(1.7 * columns, 2.25 * rows + 0.5), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=16)
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
        axes.set_axis_off()
        if place < len(mistakes):
            mistake = mistakes[place]
            axes.imshow(mistake.image, cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"{mistake.true}\n→ {mistake.predicted} {mistake.probability:.0%}", fontsize=11)
    return figure


def as_png(figure: "Figure") -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
