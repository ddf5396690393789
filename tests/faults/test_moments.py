"""The trainer or its shipper is killed with -9 at a chosen moment: between two steps that should be one.

`make test-faults FULL=1` tries all of them, without FULL one of each process.
"""

import os
from pathlib import Path

import pytest

from .conftest import TRAIN, Place

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future

KILL = """
import importlib, os, signal
place, count = os.environ["KILL_AT"].split("#")
module, names = place.split(":")
owner, (*path, name) = importlib.import_module(module), names.split(".")
for part in path:
    owner = getattr(owner, part)
real, calls = getattr(owner, name), []
def kill_at(*args, **kwargs):
    calls.append(1)
    if len(calls) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(owner, name, kill_at)
"""
"""As sitecustomize, which every Python process of the training imports."""

TRAINER = {
    "its checkpoint is written, its record not yet in the journal": "fmnist.tracking.tracker:JournalTracker.commit#5",
    "an epoch's record is in the journal, nothing told": "fmnist.progress:Live.epoch#4",
    "the last epoch is saved, nothing exported": "fmnist.training:export_model#1",
    "the model is there, its result not yet": "fmnist.run:Run.write_result#1",
    "the result is there, the journal's end not yet": "fmnist.tracking.tracker:JournalTracker.end#1",
    "all is done but the wait": "fmnist.tracking.tracker:JournalTracker.wait#1",
}
SHIPPER = {
    "MLflow's run is made, its parameters not yet": "mlflow.entities:Param#1",
    "an epoch's scores are sent, its matrix not yet": "fmnist.tracking.mlflow_sink:MlflowSink._log_confusion#3",
    "a record is sent, that it is not yet noted": "fmnist.tracking.shipper:State.note#6",
    "the report is sent, the model not yet": "fmnist.tracking.mlflow_sink:MlflowSink._log_model#1",
    "the model is sent, not yet registered": "fmnist.tracking.mlflow_sink:MlflowSink._register#1",
    "the version is there, not yet the champion": "mlflow:MlflowClient.set_registered_model_alias#1",
    "the champion is there, the run not yet finished": "mlflow:MlflowClient.set_terminated#1",
}
SOME = slice(None) if os.environ.get("FULL") else slice(4, 5)


def killed(folder: Path, moment: str) -> Place:
    """A place where a training was started that is killed at the moment."""
    (folder / "patch").mkdir()
    (folder / "patch" / "sitecustomize.py").write_text(KILL)
    place = Place(folder / "home", PYTHONPATH=str(folder / "patch"), KILL_AT=moment)
    done = place.run(*TRAIN)
    assert (done.returncode == -9) == (moment in TRAINER.values()), done.stderr
    assert done.returncode == -9 or "the shipper ended with -9" in done.stderr
    place.environment.pop("PYTHONPATH")
    return place


@pytest.mark.parametrize("moment", list(TRAINER)[SOME])
def test_a_trainer_that_is_killed_when(tmp_path: Path, undisturbed: str, moment: str) -> None:
    place = killed(tmp_path, TRAINER[moment])
    done = place.run("train", "--resume", "latest")
    assert done.returncode == 0, done.stderr
    assert place.run("sync").returncode == 0
    assert place.weights == undisturbed
    place.check_tracked_once()


@pytest.mark.parametrize("moment", list(SHIPPER)[SOME])
def test_a_shipper_that_is_killed_when(tmp_path: Path, undisturbed: str, moment: str) -> None:
    place = killed(tmp_path, SHIPPER[moment])
    assert place.run("sync").returncode == 0
    assert place.weights == undisturbed
    place.check_tracked_once()
    assert '"champion"' in place.run("models", "--json").stdout
