import io
from pathlib import Path

import pytest
from rich.console import Console

from fmnist.cluster.board import Board, compared, header, row, show_outcome
from fmnist.sweep import Trial, trials_of

from ..sweeps import PLAN, a_sweep


@pytest.fixture
def trials(tmp_path: Path) -> dict[int, Trial]:
    return trials_of(PLAN, a_sweep(tmp_path)[1])


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=120, force_terminal=terminal, markup=False, highlight=False)


def test_values_stand_under_their_names(trials: dict[int, Trial]) -> None:
    upper, lower = header(PLAN)
    line = row(trials[3], PLAN)
    assert len(upper) == len(lower) == len(line)
    place = lower.index("size") + len("size")
    assert line[:place].endswith(" 64")
    assert upper[:place].endswith("batch")
    assert line.split() == ["3", "completed", "3/3", "93.00%", "0.01", "0.2", "64"]


def test_a_file_gets_a_line_a_trial(trials: dict[int, Trial]) -> None:
    out = console(terminal=False)
    board = Board(out)
    board.begin(PLAN, {}, "2 trials at a time on this machine")
    board.begin(PLAN, trials, "again")
    board.phase("sending", 9)
    board.phase("sending", 8)
    board.end()
    text = out.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.split() for line in text.splitlines()]
    assert [line[0] for line in lines if line and line[0].isdigit()][1:] == ["1", "2", "3", "4"]
    assert text.count("the best so far") == 1
    assert "       its loss is no finite number" in text
    assert text.count("sending") == 1


def test_a_terminal_sees_what_runs_and_what_is_left(trials: dict[int, Trial]) -> None:
    out = console(terminal=True)
    board = Board(out)
    board.begin(PLAN, trials, "here")
    out.print(board._picture())
    board.end()
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "running" in text
    assert "4 of 5 trials are over, 1 of them stopped early; best: trial 3, 93.00%; at most 1 epochs are left" in text


def test_the_outcome_says_what_was_gained_and_how_sure_that_is(trials: dict[int, Trial]) -> None:
    assert compared(PLAN, trials) == (
        "the recipe fast itself has 90.00% (trial 1), the best 93.00%: +3.00 points; "
        "it is the luckiest of 2: train it with other seeds before you believe it"
    )
    del trials[1]
    assert compared(PLAN, trials) == "the best has 93.00% on the validation images"


def test_a_recipe_that_stays_the_best_is_told(tmp_path: Path) -> None:
    _, records = a_sweep(tmp_path)
    for record in records:
        if record["key"] == "trial/003/epoch/3":
            record["scores"]["val_accuracy"] = 0.8
        if record["key"] == "trial/001/start":
            record["values"] = {name: getattr(PLAN.base, name) for name in PLAN.space}
    trials = trials_of(PLAN, records)
    assert compared(PLAN, trials) == "no trial was better than the recipe fast itself: 90.00%"
    out = console(terminal=False)
    show_outcome(out, PLAN, trials)
    assert "5 trials (2 completed, 1 running, 1 stopped early, 1 diverged); the best:" in out.file.getvalue()  # type: ignore[attr-defined]
