from dataclasses import replace
from pathlib import Path

import pytest

from fmnist.errors import Failure, UserError
from fmnist.recipe import TrainConfig
from fmnist.sweep import Sweep, create_sweep, find_sweep, key, list_sweeps, ranked, split_key, trials_of

from .sweeps import PLAN, a_sweep, ended


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    sweep = create_sweep(tmp_path, PLAN)
    assert Sweep(sweep.folder).about == PLAN
    assert (sweep.title, sweep.resume_command) == (f"sweep {sweep.id}", f"fmnist sweep --resume {sweep.id}")
    assert sweep.id.startswith("sweep-20261126-120000-123")


def test_a_damaged_plan_is_told(tmp_path: Path) -> None:
    sweep = create_sweep(tmp_path, PLAN)
    (sweep.folder / "sweep.json").write_text("{}")
    with pytest.raises(Failure, match="is not what a sweep writes"):
        _ = Sweep(sweep.folder).about


def test_records_know_their_trial() -> None:
    assert key(7, "epoch/3") == "trial/007/epoch/3"
    assert split_key(key(7, "epoch/3")) == (7, "epoch/3")
    assert split_key("start") is None


def test_a_journal_tells_of_trials(tmp_path: Path) -> None:
    sweep, records = a_sweep(tmp_path)
    trials = trials_of(sweep.about, records)
    assert {number: trial.state for number, trial in trials.items()} == {
        1: "completed",
        2: "stopped",
        3: "completed",
        4: "diverged",
        5: "running",
    }
    third = trials[3]
    assert third.config == PLAN.base.model_copy(update={"learning_rate": 0.01, "batch_size": 64})
    assert (third.seconds, third.kept) == (6.0, third.records[-1]["scores"])
    assert trials[4].kept is None
    assert trials[4].why == "its loss is no finite number"


def test_the_best_is_the_best_of_those_that_reached_their_end(tmp_path: Path) -> None:
    sweep, records = a_sweep(tmp_path)
    trials = trials_of(sweep.about, records)
    assert [trial.number for trial in ranked(trials.values())] == [3, 1]
    trials[2].records = [{"scores": {"val_accuracy": 0.99, "val_loss": 0.01}}]
    assert [trial.number for trial in ranked(trials.values())] == [3, 1]  # it has never trained with a low rate
    trials[1].records[-1]["scores"] |= {"val_accuracy": 0.93, "val_loss": 0.05}
    assert [trial.number for trial in ranked(trials.values())] == [1, 3]  # as good, and surer


def test_who_keeps_the_best_epoch_is_judged_by_it(tmp_path: Path) -> None:
    sweep, records = a_sweep(tmp_path)
    trial = trials_of(sweep.about, records)[1]
    trial.records.append({"scores": {"val_accuracy": 0.2, "val_loss": 3.0}})
    assert trial.kept is not None
    assert trial.kept["val_accuracy"] == 0.2
    trial.config = TrainConfig(keep="best")
    assert trial.kept["val_accuracy"] == 0.9


def test_sweeps_are_found_by_their_beginning(tmp_path: Path) -> None:
    first, second = (create_sweep(tmp_path, replace(PLAN, created=f"2026-11-2{day}T12:00:00+00:00")) for day in (6, 7))
    assert list_sweeps(tmp_path) == [first, second]
    assert find_sweep(tmp_path, first.id) == first
    assert find_sweep(tmp_path, second.id.removeprefix("sweep-")) == second
    assert find_sweep(tmp_path, "latest") == second
    with pytest.raises(UserError, match=r"sweep 'sweep-2026': could be any of .*; the last are sweep-"):
        find_sweep(tmp_path, "sweep-2026")
    with pytest.raises(UserError, match=r"sweep 'x': there is no such sweep in .*; the last are"):
        find_sweep(tmp_path, "x")
    with pytest.raises(UserError, match=r"sweep 'latest': there is no such sweep in .*; make one: fmnist sweep"):
        find_sweep(tmp_path / "none", "latest")


def test_a_sweep_is_whole_with_its_report(tmp_path: Path) -> None:
    from fmnist.recipe import make_config
    from fmnist.tracking.sweep_report import write_report

    sweep, records = a_sweep(tmp_path)
    assert not sweep.is_whole
    write_report(sweep, trials_of(sweep.about, ended(records)))
    assert sweep.is_whole
    assert make_config(str(sweep.best)) == trials_of(sweep.about, records)[3].config
    assert make_config(str(sweep.best), epochs="9").epochs == 9
