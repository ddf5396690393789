import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist.sweep import PREFIX, trials_of
from fmnist.tracking.journal import Journal, Record
from fmnist.tracking.shipper import State, ship
from fmnist.tracking.sweep_report import write_report
from fmnist.tracking.sweep_sinks import SweepSink
from fmnist.tracking.wiring import Destinations

from ..sweeps import PLAN, a_sweep, ended

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future


def destinations(place: Path) -> Destinations:
    return Destinations(f"sqlite:///{place / 'mlflow.db'}", "clothes", "clothes", place / "artifacts", place / "logs")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def records(place: Path) -> list[Record]:
    """A sweep that was shipped in three parts: killed in its fifth trial, and again before its end."""
    sweep, records = a_sweep(place)
    everything = ended(records)
    for part in (everything[:12], everything[:-1], everything):
        Journal(sweep.journal).add_missing(part)
        if part == everything:
            write_report(sweep, trials_of(PLAN, everything))
        assert ship(sweep, destinations(place).sinks(sweep), follow=False) == {}
    return everything


@pytest.fixture(scope="module")
def runs(place: Path, records: list[Record]) -> dict[str, Any]:
    """What MLflow has: run name -> run."""
    client = mlflow.MlflowClient(destinations(place).mlflow_uri)
    experiment = client.get_experiment_by_name("clothes")
    found = client.search_runs([experiment.experiment_id])
    assert len(found) == 6
    return {run.info.run_name: run for run in found}


def test_trials_are_nested_under_one_parent(runs: dict[str, Any], records: list[Record]) -> None:
    sweep_id = records[0]["run_id"]
    parent = runs.pop(sweep_id)
    assert sorted(runs) == [f"{sweep_id}-00{number}" for number in (1, 2, 3, 4, 5)]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert "mlflow.parentRunId" not in parent.data.tags
    assert parent.data.params["space.learning_rate"] == "0.001..0.1 (log)"
    assert (parent.data.params["trials"], parent.data.params["optimizer"]) == ("5", "muon")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best_val_accuracy"] == 0.93
    runs[sweep_id] = parent


def test_how_each_ended_is_told(runs: dict[str, Any]) -> None:
    ends = [(run.info.status, run.data.tags["fmnist.trial"]) for name, run in sorted(runs.items()) if name[-4] == "-"]
    assert ends == [
        ("FINISHED", "completed"),
        ("KILLED", "stopped early"),
        ("FINISHED", "completed"),
        ("FAILED", "diverged"),
        ("KILLED", "stopped early"),
    ]


def test_a_trial_has_all_fields_as_params_and_each_epoch_once(
    runs: dict[str, Any], records: list[Record], place: Path
) -> None:
    (third,) = (run for name, run in runs.items() if name.endswith("-003"))
    expected = trials_of(PLAN, records)[3].config.model_dump()
    assert third.data.params == {name: str(value) for name, value in expected.items()}
    client = mlflow.MlflowClient(destinations(place).mlflow_uri)
    history = client.get_metric_history(third.info.run_id, "val_accuracy")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.7), (3, 0.93)]
    assert third.info.start_time == 3000_000
    assert third.data.tags["fmnist.host"] == "a-node"  # where it trained


def test_the_parent_has_the_report(runs: dict[str, Any], records: list[Record], place: Path) -> None:
    client = mlflow.MlflowClient(destinations(place).mlflow_uri)
    parent = runs[records[0]["run_id"]].info.run_id
    names = {item.path for item in client.list_artifacts(parent, "sweep")}
    assert names == {"sweep/best.json", "sweep/parallel_coordinates.png", "sweep/trials.csv"}
    best = json.loads(Path(client.download_artifacts(parent, "sweep/best.json", str(place))).read_text())
    assert (best["learning_rate"], best["batch_size"]) == (0.01, 64)


def test_tensorboard_has_a_folder_a_trial(records: list[Record], place: Path) -> None:
    (folder,) = (place / "logs").iterdir()
    assert folder.name.startswith(PREFIX)
    assert sorted(path.name for path in folder.iterdir()) == [f"trial_00{number}" for number in (1, 2, 3, 4, 5)]
    events = EventAccumulator(str(folder / "trial_003"), size_guidance={"scalars": 0}).Reload()
    assert [(point.step, round(point.value, 3)) for point in events.Scalars("val_accuracy")] == [
        (1, 0.5),
        (2, 0.7),
        (3, 0.93),
    ]
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_a_sweep_that_nobody_continues_is_not_shown_as_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor its trials, though whoever sent them was killed too, when they had just been sent."""
    sweep, records = a_sweep(tmp_path)
    Journal(sweep.journal).add_missing([record for record in records if record["key"] != "trial/001/end"])
    with monkeypatch.context() as killed:
        killed.setattr(SweepSink, "close", lambda self, abandoned: None)
        killed.setattr(State, "close", lambda self, lane: None)
        assert ship(sweep, destinations(tmp_path).sinks(sweep), follow=False) == {}
    assert ship(sweep, destinations(tmp_path).sinks(sweep), follow=False) == {}
    client = mlflow.MlflowClient(destinations(tmp_path).mlflow_uri)
    found = client.search_runs([client.get_experiment_by_name("clothes").experiment_id])
    assert sorted(run.info.status for run in found) == ["FAILED", "FINISHED", "KILLED", "KILLED", "KILLED", "KILLED"]
