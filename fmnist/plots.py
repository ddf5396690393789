"""Numbers -> pictures, in one style: large type for thumbnails, colours that colour-blind people tell apart."""

import io
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fmnist.data.dataset import Split

COLOURS = "cividis"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, without the yellow that white paper swallows (https://jfly.uni-koeln.de/color/)."""
MARKERS = ("o", "s", "^")
DPI = 100
GAP = 2  # pixels between two samples


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
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    figure = _figure(8, 7.4)
    axes = figure.subplots()
    axes.imshow(shares, cmap=COLOURS, vmin=0, vmax=1)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=13, parse_math=False)
    axes.set_yticks(places, names, fontsize=13, parse_math=False)
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
    rows = max(1, -(-len(mistakes) // columns))
    figure = _figure(1.7 * columns, 2.25 * rows + 0.5)
    figure.suptitle(title, fontsize=16)
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
        axes.set_axis_off()
        if place < len(mistakes):
            mistake = mistakes[place]
            axes.imshow(mistake.image, cmap="gray", vmin=0, vmax=255)
            told = f"{mistake.true}\n→ {mistake.predicted} {mistake.probability:.0%}"
            axes.set_title(told, fontsize=11, parse_math=False)
    return figure


def curves_picture(
    runs: Mapping[str, Sequence[Mapping[str, float]]], title: str, epochs: int | None = None
) -> "Figure":
    """Loss and accuracy by epoch, in training (dashed) and validation, of one run or several side by side.

    `runs`: a run's name -> the scores of its epochs, the first one first. `epochs`: how many there will be, so that
    the axes stay where they are while a run goes on.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = _figure(10, 4.2)
    figure.suptitle(title, fontsize=16)
    longest = max([epochs or 2, *map(len, runs.values())])
    for axes, score in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for (name, scores), style in zip(runs.items(), cycle(_line_styles()), strict=False):
            _draw_curves(axes, f"{name}, " if len(runs) > 1 else "", scores, score, style)
        axes.set_xlim(0.5, longest + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.tick_params(labelsize=12)
        axes.set_xlabel("epoch", fontsize=14)
        axes.set_ylabel(score, fontsize=14)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if not any(runs.values()):  # before the first epoch: a frame to be filled
            axes.set_ylim(0, 1)
    loss, accuracy = figure.axes
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    if loss.lines:
        loss.legend(fontsize=12)
    return figure


def _line_styles() -> list[dict[str, Any]]:
    return [{"color": colour, "marker": marker} for marker in MARKERS for colour in LINES]


def _draw_curves(
    axes: "Axes", run: str, scores: Sequence[Mapping[str, float]], score: str, style: dict[str, Any]
) -> None:
    """One run's two lines; where it has the picture for itself, they have a colour each."""
    places = range(1, len(scores) + 1)
    validation, training = ([values[f"{part}_{score}"] for values in scores] for part in ("val", "train"))
    dashed = style | {"linestyle": "--", "linewidth": 1.5, "markersize": 3}
    if not run:
        dashed["color"] = LINES[1]
    axes.plot(places, validation, **style, linewidth=2, markersize=5, label=f"{run}validation")
    axes.plot(places, training, **dashed, label=f"{run}training")


class Scale(NamedTuple):
    """One upright axis of a parallel-coordinates picture."""

    name: str
    ticks: Sequence[tuple[float, str]]
    """(height between 0 and 1, label)."""
    places: Sequence[float | None]
    """A line's height here; None: it ends before."""


def parallel_picture(scales: Sequence[Scale], shades: Sequence[float | None], best: int | None, title: str) -> "Figure":
    """Many configurations at once: a line each, over one axis a setting, the score's axis last.

    `shades`: a line's colour, dark to light, between 0 and 1; None is grey and dashed. `best`: the
    line that stands out.
    """
    from matplotlib import colormaps

    figure = _figure(1.9 * len(scales) + 1.5, 5.4)
    axes = figure.subplots()
    order = sorted(range(len(shades)), key=lambda i: (i == best, shades[i] is not None, shades[i] or 0))
    for line in order:  # the better ones above the others
        shade, places = shades[line], [scale.places[line] for scale in scales]
        points = [(x, y) for x, y in enumerate(places) if y is not None]
        style: dict[str, Any] = {"color": "0.75", "linestyle": "--", "linewidth": 1}
        if shade is not None:
            style = {"color": colormaps[COLOURS](0.85 * shade), "linewidth": 1.8, "marker": "o", "markersize": 4}
        if line == best:
            style |= {"color": LINES[1], "linewidth": 3.5, "markersize": 7, "label": "the best"}
        axes.plot(*zip(*points, strict=True), **style)
    for x, scale in enumerate(scales):
        axes.axvline(x, color="0.3", linewidth=1, zorder=0)
        for height, label in scale.ticks:
            axes.annotate(
                label, (x, height), (5, 0), textcoords="offset points", va="center", fontsize=11, color="0.2",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
            )  # fmt: skip
    axes.set_xticks(range(len(scales)), [scale.name.replace("_", "\n") for scale in scales], fontsize=13)
    axes.set_yticks([])
    axes.set_xlim(-0.15, len(scales) - 0.45)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=16)
    return figure


def samples_picture(split: "Split", names: Sequence[str], title: str, each: int = 12) -> "Figure":
    """A row a class: `each` of its images, from all over the split."""
    side, step = split.images.shape[1], split.images.shape[1] + GAP
    grid = np.full((step * len(names) - GAP, step * each - GAP), np.nan)  # not a number: not drawn
    for row in range(len(names)):
        there = np.flatnonzero(split.labels == row)
        shown = min(each, len(there))
        # Splits are sorted by content: the first ones would be alike, and the very first and last are odd.
        chosen = there[((np.arange(shown) + 0.5) * len(there) / max(shown, 1)).astype(int)]
        for column, image in enumerate(split.images[chosen]):
            grid[row * step : row * step + side, column * step : column * step + side] = image
    figure = _figure(0.6 * each + 1.6, 0.6 * len(names) + 0.6)
    axes = figure.subplots()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(title, fontsize=16)
    axes.set_yticks(np.arange(len(names)) * step + side / 2, names, fontsize=13, parse_math=False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches. As the last value of a notebook's cell it is a picture, without pyplot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure._repr_png_ = partial(as_png, figure)  # type: ignore[attr-defined]  # what IPython asks a value for
    return figure


def as_png(figure: "Figure") -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
