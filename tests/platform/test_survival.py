"""The platform stopped, taken down, killed amid a training: everything is there afterwards, each thing once."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

EPOCHS = 12

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a command in the notebook's container, which is ended with the test."""
    with ExitStack() as started:

        def begin(platform: Any, *command: str) -> "subprocess.Popen[str]":
            whole = ["docker", "compose", "exec", "--no-TTY", "notebook", *command]
            pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            place = {"cwd": platform.folder, "env": platform.environment}
            process = started.enter_context(subprocess.Popen(whole, text=True, **place, **pipes))
            started.callback(process.kill)
            return process

        yield begin


def everything(platform: Any) -> dict[str, Any]:
    """All that MLflow and TensorBoard know."""
    runs = platform.mlflow_post("runs/search", experiment_ids=["1"])["runs"]
    for run in runs:
        for values in run["data"].values():
            values.sort(key=lambda value: value["key"])  # a database gives them in any order
    files = {
        run["info"]["run_id"]: platform.mlflow_get("artifacts/list", run_id=run["info"]["run_id"])["files"]
        for run in runs
    }
    model = platform.mlflow_get("registered-models/get", name="fashion-mnist")["registered_model"]
    scalars = platform.http.get(f"{platform.tensorboard}/data/plugin/scalars/tags", timeout=60).json()
    return {"runs": runs, "files": files, "aliases": model["aliases"], "scalars": scalars}


def whole(known: dict[str, Any]) -> bool:
    """TensorBoard has the last of each finished run's records. Other tests left trainings that they stopped."""
    finished = [run["info"]["run_name"] for run in known["runs"] if run["info"]["status"] == "FINISHED"]
    return all("test_loss" in known["scalars"].get(run_id, {}) for run_id in finished)


def check_whole(platform: Any, run_id: str) -> None:
    epochs = list(range(1, EPOCHS + 1))
    assert platform.tracked(run_id)["info"]["status"] == "FINISHED"
    for score in ("val_loss", "val_f1", "train_loss", "images_per_second"):
        # a reload amid what a resumed run wrote anew shows a part of it for a moment
        platform.wait(lambda: platform.steps(run_id, score) == (epochs, epochs), f"{score}, each epoch once")  # noqa: B023


def test_stopped_or_taken_down_it_keeps_everything(platform: Any) -> None:
    run_id = json.loads(platform.inside(*platform.train_few(EPOCHS)).stdout)["run_id"]
    check_whole(platform, run_id)
    platform.inside("fmnist", "sync", check=False)  # earlier tests' runs may be on their way still
    platform.wait(lambda: whole(everything(platform)), "every finished run to be whole in TensorBoard")
    before = everything(platform)
    token = platform.token
    platform.make("stop")
    assert {container["State"] for container in listed(platform)} == {"exited"}
    assert {container["ExitCode"] for container in listed(platform)} <= {0, 143}
    platform.compose("down")
    platform.compose("up", "--detach", "--wait")
    platform.wait(lambda: everything(platform)["scalars"] == before["scalars"], "TensorBoard to have read its files")
    assert everything(platform) == before
    assert platform.token == token


def runs(platform: Any) -> set[Path]:
    return set((platform.folder / "var" / "runs").glob("*-*-*"))


def listed(platform: Any) -> list[dict[str, Any]]:
    shown = platform.compose("ps", "--all", "--format", "json").stdout
    return [json.loads(line) for line in shown.splitlines()]


def test_a_stop_lets_a_training_leave_its_last_epoch_whole(platform: Any, start: Any) -> None:
    known = runs(platform)
    training = start(platform, *platform.train_few(200))
    (folder,) = platform.wait(lambda: runs(platform) - known, "the run's folder")
    platform.wait(lambda: (folder / "checkpoint").exists(), "the first epoch")
    platform.make("stop")
    _, err = training.communicate()
    assert training.returncode == 143
    assert f"run {folder.name}" in err and "--resume" in err
    assert {container["ExitCode"] for container in listed(platform)} <= {0, 143}
    platform.make("start")


@pytest.mark.parametrize("service", ["postgres", "mlflow", "tensorboard", "notebook"])
def test_a_killed_service_comes_back_and_the_training_is_whole(platform: Any, service: str, start: Any) -> None:
    """Killed from outside, with -9: after `docker kill`, no restart policy acts."""
    known = runs(platform)
    training = start(platform, *platform.train_few(EPOCHS))
    (folder,) = platform.wait(lambda: runs(platform) - known, "the run's folder")
    reached = lambda: platform.found(folder.name) and platform.steps(folder.name, "val_loss")[0]  # noqa: E731
    platform.wait(reached, "the first epoch in MLflow")
    victim = platform.kill(service)
    if service == "notebook":
        training.communicate()
        platform.wait(lambda: platform.inspect(service)["RestartCount"] > victim["RestartCount"], "a restart")
        platform.wait_until_healthy(service)
        training = start(platform, "fmnist", "train", "--resume", "latest", "--json")
    out, err = training.communicate()
    assert training.returncode == 0, err
    assert json.loads(out)["run_id"] == folder.name
    platform.wait_until_healthy(service)
    assert platform.inspect(service)["RestartCount"] > victim["RestartCount"]
    platform.inside("fmnist", "sync")
    check_whole(platform, folder.name)
