"""The trainer or its shipper is killed with -9 at a chosen moment: between two steps that should be one."""

import pytest

from .conftest import RESUME, TRAIN, Place

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future

TRAINER = {
    "its checkpoint is written, its record not yet in the journal": (
        "fmnist.tracking.tracker:JournalTracker.commit",
        3,
    ),
    "the result is there, the journal's end not yet": ("fmnist.tracking.tracker:JournalTracker.end", 1),
    "an epoch's record is in the journal, nothing told": ("fmnist.progress:Live.epoch", 2),
    "the last epoch is saved, nothing exported": ("fmnist.training:export_model", 1),
    "the model is there, its result not yet": ("fmnist.run:Run.write_result", 1),
    "all is done but the wait": ("fmnist.tracking.tracker:JournalTracker.wait", 1),
}
SHIPPER = {
    "a record is sent, that it is not yet noted": ("fmnist.tracking.shipper:State.note", 6),
    "the model is sent, not yet registered": ("fmnist.tracking.mlflow_sink:MlflowSink._register", 1),
    "MLflow's run is made, its parameters not yet": ("mlflow.entities:Param", 1),
    "an epoch's scores are sent, its matrix not yet": ("fmnist.tracking.mlflow_sink:MlflowSink._log_confusion", 3),
    "the report is sent, the model not yet": ("fmnist.tracking.mlflow_sink:MlflowSink._log_model", 1),
    "the version is there, not yet the champion": ("mlflow:MlflowClient.set_registered_model_alias", 1),
    "the champion is there, the run not yet finished": ("mlflow:MlflowClient.set_terminated", 1),
}


@pytest.mark.fault("trainer killed (-9) between two steps, resumed", 2, len(TRAINER))
def test_a_trainer_that_is_killed_when(place: Place, undisturbed: str, seed: int) -> None:
    moment, (call, number) = list(TRAINER.items())[seed]
    code, _, err = place.run(*TRAIN, fault={"call": call, "number": number})
    assert code == -9, f"{moment}: {err}"
    place.do(*RESUME)
    place.do("sync")
    assert place.weights == undisturbed, moment
    place.check_tracked_once()


@pytest.mark.fault("shipper killed (-9) between two steps, synced", 2, len(SHIPPER))
def test_a_shipper_that_is_killed_when(place: Place, undisturbed: str, seed: int) -> None:
    moment, (call, number) = list(SHIPPER.items())[seed]
    code, _, err = place.run(*TRAIN, fault={"call": call, "number": number})
    assert code == 0 and "the shipper ended with -9" in err, f"{moment}: {code} {err}"
    place.do("sync")
    assert place.weights == undisturbed, moment
    place.check_tracked_once()
    assert '"champion"' in place.do("models", "--json")
