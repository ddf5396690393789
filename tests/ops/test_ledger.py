"""What MLflow's own answers decide: a version of any model, a run restored, a server that deletes nothing."""

import pytest

from fmnist.ops import ledger
from fmnist.ops.garbage import DELETED, HERE, clear

from .places import RUNS, Place, digests, files_of

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future


@pytest.mark.parametrize("address", ["models:/{model}", "runs:/{run}/model"])
def test_a_version_of_any_model_counts_with_no_tag_and_no_run_of_its_own(place: Place, address: str) -> None:
    place.delete_version(2)
    run = place.mlflow_run(RUNS[1]).info.run_id
    (model,) = place.client.search_logged_models(["1"], f"source_run_id = '{run}'")
    place.client.create_registered_model("another")
    place.client.create_model_version("another", address.format(model=model.model_id, run=run))
    place.delete_run(RUNS[1])
    assert place.clear() == []


def test_a_whole_deleted_experiment_spares_what_is_registered(place: Place) -> None:
    place.delete_version(2)
    place.client.delete_experiment("1")
    assert place.named(DELETED) == []  # deleted just now
    for run_id in RUNS:
        place.delete_run(run_id)
    assert place.clear() == [RUNS[1]]


def test_a_run_that_was_restored_or_registered_meanwhile_is_left(place: Place) -> None:
    place.delete_version(2)
    place.delete_run(RUNS[1])
    found = place.find()
    before = digests(place.home / "runs", place.home / "artifacts", place.log(RUNS[1]))
    place.client.restore_run(place.mlflow_run(RUNS[1]).info.run_id)
    gone, (failure,) = clear(found.pieces)
    assert gone == []
    assert "was restored or registered meanwhile" in str(failure)
    assert digests(place.home / "runs", place.home / "artifacts", place.log(RUNS[1])) == before


@pytest.mark.parametrize("address", ["models:/{model}", "runs:/{run}/model"])
def test_a_run_whose_model_was_registered_meanwhile_with_no_tag_is_left(place: Place, address: str) -> None:
    place.delete_version(2)
    run = place.mlflow_run(RUNS[1]).info.run_id
    (model,) = place.client.search_logged_models(["1"], f"source_run_id = '{run}'")
    place.delete_run(RUNS[1])
    found = place.find()
    place.client.create_registered_model("another")
    place.client.create_model_version("another", address.format(model=model.model_id, run=run))
    gone, (failure,) = clear(found.pieces)
    assert gone == [] and "was restored or registered meanwhile" in str(failure)


@pytest.fixture
def over_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's store as a client of its server has it: nothing in it deletes for good."""
    monkeypatch.setattr(ledger, "_store", lambda client: object())


def test_over_a_server_what_is_here_goes_and_what_is_there_is_told(place: Place, over_rest: None) -> None:
    place.delete_version(2)
    run = place.mlflow_run(RUNS[1])
    place.delete_run(RUNS[1])
    assert place.named(HERE) == []  # when it was deleted is not known, and its end is younger
    place.end(RUNS[1], days=10)
    here, there = files_of(place, RUNS[1])[:2], digests(place.home / "artifacts")
    told = f"mlflow gc --older-than 7d --run-ids {run.info.run_id}"
    assert any(line.startswith(f"{DELETED}, 1: over its API") and line.endswith(told) for line in place.find().kept)
    assert place.named(HERE) == [RUNS[1]]
    assert place.clear() == [RUNS[1]]
    assert not any(folder.exists() for folder in here)
    assert digests(place.home / "artifacts") == there
    assert place.find().pieces == []
    assert any(line.endswith(told) for line in place.find().kept)  # until that is done


def test_no_command_is_told_that_would_delete_what_a_version_comes_from(place: Place, over_rest: None) -> None:
    place.delete_version(2)
    place.client.delete_experiment("1")
    place.end(RUNS[1], days=10)
    (told,) = [line for line in place.find().kept if "API" in line]
    assert "mlflow gc" not in told
    assert f"restore the experiment of {RUNS[0]} first" in told
