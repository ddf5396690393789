import io

from rich.console import Console

from fmnist.progress import HEADER, Live, Silent, epoch_row
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
