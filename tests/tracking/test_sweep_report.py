import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from fmnist.plots import Scale, parallel_picture
from fmnist.sweep import trials_of
from fmnist.tracking import sweep_report
from fmnist.tracking.sweep_report import sweep_picture, trials_table, write_report

from ..sweeps import PLAN, a_sweep, ended


def test_the_table_has_a_row_a_trial(tmp_path: Path) -> None:
    _, records = a_sweep(tmp_path)
    rows = list(csv.DictReader(io.StringIO(trials_table(PLAN.space, list(trials_of(PLAN, records).values())))))
    assert [row["trial"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[2] == {
        "trial": "3",
        "state": "completed",
        "epochs": "3",
        "seconds": "6.0",
        "val_accuracy": "0.930000",
        "val_loss": "0.070000",
        "val_f1": "0.930000",
        "learning_rate": "0.01",
        "dropout": "0.2",
        "batch_size": "64",
    }
    assert (rows[3]["state"], rows[3]["val_accuracy"]) == ("diverged", "")


def test_the_picture_has_an_axis_a_field_and_one_for_the_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[list[Scale], list[float | None], int | None, str]] = []

    def kept(*arguments: object) -> object:
        drawn.append(arguments)  # type: ignore[arg-type]
        return parallel_picture(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("fmnist.tracking.sweep_report.parallel_picture", kept)
    sweep, records = a_sweep(tmp_path)
    picture = Image.open(io.BytesIO(sweep_picture(sweep, list(trials_of(PLAN, records).values()))))
    assert picture.width > picture.height > 400
    ((scales, shades, best, title),) = drawn
    assert [scale.name for scale in scales] == ["learning_rate", "dropout", "batch_size", "validation_accuracy"]
    assert [round(place or 0, 3) for place in scales[0].places] == [0.301, 0.301, 0.5, 1, 0.301]  # logarithms
    assert scales[1].places == [0.2, 0.7, 0.2, 0.2, 1.0]
    assert scales[2].ticks == [(0.25, "64"), (0.75, "256")]
    assert [label for _, label in scales[3].ticks][::4] == ["90.00%", "93.00%"]
    assert scales[3].places[3] is None  # it has no score
    assert [shade is None for shade in shades] == [False, True, False, True, True]
    assert (best, title.endswith("5 trials; dashed: 3 that did not reach their end")) == (2, True)


def test_one_trial_is_a_picture_too(tmp_path: Path) -> None:
    sweep, records = a_sweep(tmp_path)
    (trial, *_) = trials_of(PLAN, records).values()
    assert sweep_picture(sweep, [trial]).startswith(b"\x89PNG")


def test_the_best_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> bytes:
        raise OSError

    sweep, records = a_sweep(tmp_path)
    trials = trials_of(PLAN, ended(records))
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(sweep_report, "sweep_picture", fails)
        write_report(sweep, trials)
    assert sweep.report.is_dir() and not sweep.is_whole
    write_report(sweep, trials)
    assert sweep.is_whole
    assert {path.name for path in sweep.report.iterdir()} == {"best.json", "trials.csv", "parallel_coordinates.png"}
