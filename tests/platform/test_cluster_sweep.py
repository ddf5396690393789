"""Sweeps on a real Ray: found, nested in MLflow, stopped, killed, gone on with, promoted."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from fmnist.recipe import TrainConfig, make_config
from fmnist.sweep import Sweep, Trial, list_sweeps, trials_of
from fmnist.tracking.journal import Journal

from ..helpers import environment_of, until

WAIT = 180  # seconds; a busy machine is no fault
MODEL = """
import os, pathlib, time
from torch import nn

class Slow(nn.Flatten):
    def forward(self, x):
        time.sleep(float(os.environ.get("PAUSE", 0)) if self.training else 0)
        return super().forward(x)

def net(classes, dropout):
    with pathlib.Path(os.environ["BUILT"]).open("a") as file:
        file.write("built\\n")
    return nn.Sequential(Slow(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))
"""
"""A small network that notes how often somebody begins to train it, and takes its time."""
OWN = ("--space", "model=counted:net", "--space", "batch_size=64", "--space", "optimizer=adamw")

pytestmark = pytest.mark.filterwarnings("ignore")


class Place:
    """A workspace, and commands in it, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.built = folder, folder / "var", folder / "built"
        (folder / "counted.py").write_text(MODEL)
        self.environment = environment_of(self.home) | {"BUILT": str(self.built), "OMP_NUM_THREADS": "1"}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "fmnist", "sweep", *map(str, arguments)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env=self.environment | environment, cwd=self.folder, **pipes)
        self.started.append(process)
        return process

    def run(self, *arguments: object, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=WAIT)
        return process.returncode, out, err

    @property
    def sweep(self) -> Sweep:
        (found,) = list_sweeps(self.home / "sweeps")
        return found

    def trials(self) -> dict[int, Trial]:
        if not list_sweeps(self.home / "sweeps"):
            return {}
        return trials_of(self.sweep.about, Journal(self.sweep.journal).read())

    def over(self) -> list[int]:
        return [trial.number for trial in self.trials().values() if trial.state != "running"]

    def times_built(self) -> int:
        return self.built.read_text().count("built") if self.built.exists() else 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for process in place.started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_a_sweep_gives_a_recipe_and_a_champion(place: Place) -> None:
    given = ("--trials", 3, "--epochs", 2, "--concurrent", 2, "--space", "batch_size=64", "--seed", 3, "--name", "mine")
    code, out, err = place.run(*given, "--promote", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert [row["trial"] for row in told["trials"]] == [1, 2, 3]
    first, best = told["trials"][0], told["trials"][told["best"] - 1]
    assert (first["state"], first["learning_rate"]) == ("completed", TrainConfig().learning_rate)  # the recipe itself
    assert best["val_accuracy"] == max(row["val_accuracy"] for row in told["trials"] if row["state"] == "completed")
    assert make_config(told["recipe"]).model_dump() == told["config"]
    assert (told["config"]["batch_size"], told["config"]["seed"], told["config"]["epochs"]) == (64, 3, 2)
    assert Path(told["picture"]).read_bytes().startswith(b"\x89PNG")
    assert told["promoted"] is True
    assert "Traceback" not in err
    assert [line for line in err.lower().splitlines() if "ray" in line] == ["fmnist: starting ray"]  # it says nothing
    assert not list((place.sweep.folder / "trials").iterdir())  # no checkpoint of what is over
    check_mlflow(place, told)


def check_mlflow(place: Place, told: dict[str, Any]) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{place.home / 'mlflow.db'}", f"sqlite:///{place.home / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("fashion-mnist").experiment_id])
    runs = {run.info.run_name: run for run in found}
    parent = runs.pop(told["sweep_id"])
    final = runs.pop(told["run_id"])
    assert sorted(runs) == [f"{told['sweep_id']}-{number:03}" for number in (1, 2, 3)]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert {run.info.status for run in [parent, final, runs[f"{told['sweep_id']}-001"]]} == {"FINISHED"}
    for row in told["trials"]:
        run = runs[f"{told['sweep_id']}-{row['trial']:03}"]
        assert run.data.metrics["val_accuracy"] == pytest.approx(row["val_accuracy"])
        assert set(run.data.params) == set(TrainConfig.model_fields)
    names = {item.path for item in client.list_artifacts(parent.info.run_id, "sweep")}
    assert names == {"sweep/best.json", "sweep/parallel_coordinates.png", "sweep/trials.csv"}
    assert final.data.tags["sweep"] == told["sweep_id"]
    champion = client.get_model_version_by_alias("fashion-mnist", "champion")
    assert champion.run_id == final.info.run_id


def test_a_sweep_goes_on_after_ctrl_c_and_after_a_kill(place: Place) -> None:
    """No trial that was over is begun again; one that was cut off goes on from its last epoch."""
    before = {process.pid for process in psutil.process_iter()}
    pause = {"PAUSE": "0.15", "FMNIST_TRACKING": "no"}
    first = place.start("--trials", 4, "--epochs", 3, "--concurrent", 1, *OWN, **pause)
    until(lambda: len(place.over()) == 1 and len(place.trials()) == 2, first)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=WAIT)
    assert first.returncode == 130 and "Traceback" not in err, err
    last = err.strip().splitlines()[-1]
    assert last == (
        f"fmnist: sweep {place.sweep.id}: interrupted, 1 of 4 trials are over and kept; "
        f"go on with: fmnist sweep --resume {place.sweep.id}"
    )
    check_nothing_left(before)

    second = place.start("--resume", "latest", "--concurrent", 1, **pause)
    until(
        lambda: len(place.over()) == 2 and any(t.records for t in place.trials().values() if t.state == "running"),
        second,
    )
    second.kill()
    second.communicate()
    check_nothing_left(before)
    over, begun = place.over(), place.times_built()
    records = {record["key"]: record for record in Journal(place.sweep.journal).read()}

    code, out, err = place.run("--resume", place.sweep.id[:-1], "--json", FMNIST_SYNC_WAIT="90")
    assert code == 0, err
    lanes = json.loads(place.sweep.shipping.read_text())
    assert [lane["ended"] for lane in lanes.values()] == [True, True]  # Ray's end was not the shipper's
    assert place.times_built() == begun + 4 - len(over)
    assert len(json.loads(out)["trials"]) == 4
    after = {record["key"]: record for record in Journal(place.sweep.journal).read()}
    assert records.items() <= after.items()
    assert all(trial.state != "running" for trial in place.trials().values())
    assert len(after) == len(Journal(place.sweep.journal).read())  # each once

    again = place.run("--resume", "latest", FMNIST_TRACKING="no")  # it is over: told once more, without Ray
    assert (again[0], place.times_built()) == (0, begun + 4 - len(over))


def check_nothing_left(before: set[int]) -> None:
    """All processes of Ray's that came with a sweep go with it."""

    def gone() -> bool:
        new = [process for process in psutil.process_iter() if process.pid not in before]
        return not [process for process in new if is_of_ray(process)]

    until(gone)


def is_of_ray(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
        return "fmnist-ray-" in command or "ray::" in command
    except psutil.Error:
        return False


def test_a_trial_whose_worker_dies_goes_on_from_its_last_epoch(place: Place) -> None:
    pause = {"PAUSE": "0.15", "FMNIST_TRACKING": "no"}
    process = place.start("--trials", 2, "--epochs", 4, "--concurrent", 1, *OWN, "--json", **pause)
    until(lambda: place.trials() and len(place.trials()[1].records) >= 1, process)
    family = psutil.Process(process.pid).children(recursive=True)
    (victim,) = (one for one in family if one.name().startswith("ray::ImplicitFu"))  # Tune's own name for it
    victim.kill()
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    assert {row["state"] for row in json.loads(out)["trials"]} <= {"completed", "stopped"}
    assert place.times_built() == 3  # twice the first
    told = [record["key"] for record in Journal(place.sweep.journal).read()]
    assert len(told) == len(set(told))
