import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from fmnist.progress import HEADER, Live, Notebook, Silent, epoch_row, watcher_here
from fmnist.recipe import TrainConfig


def record(epoch: int) -> dict[str, object]:
    scores = {"train_loss": 0.5, "val_loss": 0.25, "train_accuracy": 0.9, "val_accuracy": 0.9251, "val_f1": 0.9}
    return {"epoch": epoch, "scores": scores | {"images_per_second": 6000.0, "epoch_seconds": 8.0}}


def follow(console: Console) -> str:
    live = Live(console)
    live.begin(TrainConfig(epochs=3), 100, [record(1)])
    live.step(2, 50)
    live.epoch(record(2))
    live.phase("exporting")
    live.phase("scoring")
    live.phase("sending", 60)
    live.phase("sending", 59.5)
    live.end()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_file_gets_a_plain_line_an_epoch() -> None:
    lines = follow(Console(file=io.StringIO(), width=100, highlight=False)).splitlines()
    assert lines[:3] == [HEADER, epoch_row(record(1), 3), epoch_row(record(2), 3)]
    assert lines[3:] == ["exporting …", "scoring …", "sending, 60 s at most …"]  # not a line a second
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_bar_as_well() -> None:
    text = follow(Console(file=io.StringIO(), width=100, force_terminal=True, highlight=False))
    assert "━" in text
    assert "2/3" in text
    assert "sending, 60 s at most" in text
    assert epoch_row(record(2), 3) in text


def test_columns_stand_under_their_names() -> None:
    assert len(HEADER) == len(epoch_row(record(2), 100))


def test_silent_is_a_watcher_that_says_nothing() -> None:
    silent = Silent()
    silent.begin(TrainConfig(), 1, [])
    silent.step(1, 1)
    silent.epoch({})
    silent.phase("")
    silent.end()


class Cell:
    """What a notebook's cell shows: every drawing of each of its outputs; IPython itself is not needed for it."""

    def __init__(self) -> None:
        self.outputs: list[list[Any]] = []

    def display(self, content: Any, display_id: bool) -> Any:
        drawings = [content]
        self.outputs.append(drawings)
        return SimpleNamespace(update=drawings.append)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    cell = Cell()
    display = SimpleNamespace(display=cell.display, Pretty=str)
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(
        sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display, version_info=(9, 0))
    )  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", display)  # type: ignore[arg-type]
    return cell


def test_a_notebook_draws_its_rows_anew(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = watcher_here()
    assert isinstance(watcher, Notebook)
    monkeypatch.setattr(Notebook, "PAUSE", 0)
    watcher.begin(TrainConfig(epochs=3), 100, [record(1)])
    _, text = cell.outputs
    watcher.step(2, 50)
    assert text[-1].splitlines() == [HEADER, epoch_row(record(1), 3), "     2/3 " + "█" * 20 + "░" * 20]
    watcher.epoch(record(2))
    watcher.phase("exporting")
    assert text[-1].splitlines()[2:] == [epoch_row(record(2), 3), "exporting …"]
    watcher.end()
    assert text[-1].splitlines() == [HEADER, epoch_row(record(1), 3), epoch_row(record(2), 3)]
    assert len(cell.outputs) == 2


def test_a_notebook_draws_its_curves_anew_after_each_epoch(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = watcher_here()
    monkeypatch.setattr(Notebook, "PAUSE", 0)
    watcher.begin(TrainConfig(epochs=3), 100, [record(1)])
    curves, _ = cell.outputs
    before = len(curves)
    watcher.step(2, 50)
    assert len(curves) == before  # a picture is too much for every step
    watcher.epoch(record(2))
    drawn = [list(line.get_xdata()) for line in curves[-1].axes[0].lines]
    assert drawn == [[1, 2], [1, 2]]  # what was there when the run went on, too
    assert curves[-1].axes[0].get_xlim() == (0.5, 3.5)  # room for all epochs from the beginning


def test_a_run_that_was_finished_already_has_no_curves_to_draw(cell: Cell) -> None:
    watcher = watcher_here()
    watcher.phase("tracking")
    watcher.end()
    assert cell.outputs == [[f"{HEADER}\ntracking …", f"{HEADER}\n"]]


def test_steps_are_drawn_now_and_then_only(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Notebook, "PAUSE", 3600)
    watcher = watcher_here()
    watcher.begin(TrainConfig(epochs=3), 100, [])
    before = len(cell.outputs[1])
    for images in range(100):
        watcher.step(1, images)
    assert len(cell.outputs[1]) == before


def test_elsewhere_it_is_a_terminal() -> None:
    assert isinstance(watcher_here(), Live)
