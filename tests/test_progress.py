import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from fmnist.progress import HEADER, Live, Notebook, Silent, epoch_row, watcher_here
from fmnist.recipe import TrainConfig


def record(epoch: int) -> dict[str, object]:
    scores = {"train_loss": 0.5, "val_loss": 0.25, "val_accuracy": 0.9251, "val_f1": 0.9, "images_per_second": 6000.0}
    return {"epoch": epoch, "scores": scores | {"epoch_seconds": 8.0}}


def follow(console: Console) -> str:
    live = Live(console)
    live.begin(TrainConfig(epochs=3), 100, [record(1)])
    live.step(2, 50)
    live.epoch(record(2))
    live.phase("exporting")
    live.phase("scoring")
    live.end()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_file_gets_a_plain_line_an_epoch() -> None:
    lines = follow(Console(file=io.StringIO(), width=100, highlight=False)).splitlines()
    assert lines[:3] == [HEADER, epoch_row(record(1), 3), epoch_row(record(2), 3)]
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_bar_as_well() -> None:
    text = follow(Console(file=io.StringIO(), width=100, force_terminal=True, highlight=False))
    assert "━" in text
    assert "2/3" in text
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


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a notebook's cell shows, one text a drawing; IPython itself is not needed for it."""
    drawings: list[str] = []

    class Handle:
        def update(self, content: str) -> None:
            drawings.append(content)

    def show(content: str, display_id: bool) -> Handle:
        drawings.append(content)
        return Handle()

    display = SimpleNamespace(display=show, Pretty=str)
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", display)  # type: ignore[arg-type]
    return drawings


def test_a_notebook_draws_one_output_anew(cell: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = watcher_here()
    assert isinstance(watcher, Notebook)
    monkeypatch.setattr(Notebook, "PAUSE", 0)
    watcher.begin(TrainConfig(epochs=3), 100, [record(1)])
    watcher.step(2, 50)
    assert cell[-1].splitlines() == [HEADER, epoch_row(record(1), 3), "     2/3 " + "█" * 20 + "░" * 20]
    watcher.epoch(record(2))
    watcher.phase("exporting")
    assert cell[-1].splitlines()[2:] == [epoch_row(record(2), 3), "exporting …"]
    watcher.end()
    assert cell[-1].splitlines() == [HEADER, epoch_row(record(1), 3), epoch_row(record(2), 3)]


def test_steps_are_drawn_now_and_then_only(cell: list[str]) -> None:
    watcher = watcher_here()
    watcher.begin(TrainConfig(epochs=3), 100, [])
    before = len(cell)
    for images in range(100):
        watcher.step(1, images)
    assert len(cell) == before


def test_elsewhere_it_is_a_terminal() -> None:
    assert isinstance(watcher_here(), Live)
