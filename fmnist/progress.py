"""What a training tells while it goes on: to a terminal, to a notebook, to nobody."""

import sys
import time
import warnings
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fmnist.errors import as_typed
from fmnist.plots import curves_picture
from fmnist.recipe import TrainConfig

# In a notebook, the tqdm of pooch and MLflow asks for ipywidgets as soon as it is imported; nobody here needs them.
warnings.filterwarnings("ignore", message="IProgress not found")

Record = dict[str, Any]
"""What an epoch gave, as `training.py` puts it together."""


class Watcher(Protocol):
    """Follows a training."""

    def begin(self, config: TrainConfig, images: int, records: list[Record]) -> None:
        """Training starts, or goes on after `records`; an epoch has so many `images`."""

    def step(self, epoch: int, images: int) -> None:
        """So many images of the epoch are done."""

    def epoch(self, record: Record) -> None:
        """An epoch is committed."""

    def phase(self, name: str, left: float | None = None) -> None:
        """Something else begins that takes a while, or still goes on, for `left` seconds at most."""

    def end(self) -> None:
        """Nothing more comes."""


class Silent:
    """Tells nobody."""

    def begin(self, config: TrainConfig, images: int, records: list[Record]) -> None: ...
    def step(self, epoch: int, images: int) -> None: ...
    def epoch(self, record: Record) -> None: ...
    def phase(self, name: str, left: float | None = None) -> None: ...
    def end(self) -> None: ...


HEADER = f"{'epoch':>8} {'train loss':>11} {'val loss':>9} {'accuracy':>9} {'f1':>7} {'images/s':>9} {'time':>8}"


def epoch_row(record: Record, epochs: int) -> str:
    """A committed epoch as a row under HEADER."""
    s = record["scores"]
    position = f"{record['epoch']}/{epochs}"
    return (
        f"{position:>8} {s['train_loss']:>11.4f} {s['val_loss']:>9.4f} {s['val_accuracy']:>9.2%} "
        f"{s['val_f1']:>7.4f} {s['images_per_second']:>9,.0f} {s['epoch_seconds']:>7.1f}s"
    )


def _with_time(name: str, left: float | None) -> str:
    return name if left is None else f"{name}, {left:.0f} s at most"


class Live:
    """A row an epoch, and under them a bar for the epoch in progress where the console can redraw it."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(markup=False, emoji=False, highlight=False)
        columns = TextColumn("{task.description:>8}"), BarColumn(40), TextColumn("{task.fields[speed]}")
        self._bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
        self._task: TaskID | None = None
        self._epochs = 0
        self._phase = ""

    def begin(self, config: TrainConfig, images: int, records: list[Record]) -> None:
        self._epochs = config.epochs
        self.console.print(HEADER, style="bold")
        for record in records:
            self.console.print(epoch_row(record, self._epochs), style="dim")
        if self.console.is_terminal:
            self._bar.start()
            total = images * config.epochs
            self._task = self._bar.add_task("", total=total, completed=images * len(records), speed="")

    def step(self, epoch: int, images: int) -> None:
        if self._task is not None:
            task = self._bar.tasks[0]
            per_epoch = int(task.total or 0) // self._epochs
            speed = f"{task.speed:,.0f} images/s" if task.speed else ""
            completed = (epoch - 1) * per_epoch + images
            description = f"{epoch}/{self._epochs}"
            self._bar.update(self._task, completed=completed, description=description, speed=speed)

    def epoch(self, record: Record) -> None:
        self.console.print(epoch_row(record, self._epochs))

    def phase(self, name: str, left: float | None = None) -> None:
        is_new, self._phase = name != self._phase, name
        if self.console.is_terminal:
            if is_new and self._task is not None:
                self._bar.remove_task(self._task)
            if is_new:
                self._bar.start()
                self._task = self._bar.add_task(_with_time(name, left), total=None, speed="")
            assert self._task is not None
            self._bar.update(self._task, description=_with_time(name, left))
        elif is_new:  # a file gets a line, not one a second
            self.console.print(f"{_with_time(name, left)} …", style="dim")

    def end(self) -> None:
        if self._bar.live.is_started:  # else it would print an empty line
            self._bar.stop()


class Notebook:
    """Two cell outputs that are drawn anew: the curves after each epoch; the rows, and what goes on now, more often."""

    PAUSE = 0.5  # seconds between two drawings within an epoch

    def __init__(self) -> None:
        self._rows, self._drawn_at = [HEADER], 0.0
        self._scores: list[dict[str, float]] = []
        self._epochs = self._images = 0
        self._outputs: dict[str, Any] = {}

    def begin(self, config: TrainConfig, images: int, records: list[Record]) -> None:
        self._epochs, self._images = config.epochs, images
        self._add(*records)

    def step(self, epoch: int, images: int) -> None:
        if time.monotonic() - self._drawn_at >= self.PAUSE:
            done = round(40 * images / self._images)
            position = f"{epoch}/{self._epochs}"
            self._draw(f"{position:>8} {'█' * done}{'░' * (40 - done)}")

    def epoch(self, record: Record) -> None:
        self._add(record)

    def phase(self, name: str, left: float | None = None) -> None:
        self._draw(f"{_with_time(name, left)} …")

    def end(self) -> None:
        self._draw()

    def _add(self, *records: Record) -> None:
        self._rows += [epoch_row(record, self._epochs) for record in records]
        self._scores += [record["scores"] for record in records]
        self._show("curves", curves_picture({"this run": self._scores}, "Training", self._epochs))
        self._draw()

    def _draw(self, now: str = "") -> None:
        from IPython.display import Pretty

        self._drawn_at = time.monotonic()
        self._show("rows", Pretty("\n".join([*self._rows, now])))

    def _show(self, output: str, content: Any) -> None:
        from IPython.display import display

        if output in self._outputs:
            self._outputs[output].update(content)
        else:
            self._outputs[output] = display(content, display_id=True)


def watcher_here() -> Watcher:
    """The display that suits where this runs: a notebook's cell, or a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return Notebook() if hasattr(shell, "kernel") else Live()


def print_notice(text: str) -> None:
    """Tell on stderr what happens meanwhile."""
    Console(stderr=True, markup=False, highlight=False).print(f"fmnist: {as_typed(text)}", style="dim", soft_wrap=True)
