"""Artifacts, wherever MLflow keeps them: the same test for the platform's volume and for a real S3 server."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EPOCHS = 2

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=["volume", "s3"])
def store(request: pytest.FixtureRequest, make_platform: Callable[..., Any]) -> Any:
    """A platform that keeps them there."""
    return request.getfixturevalue({"volume": "platform", "s3": "cluster"}[request.param])


def test_a_model_is_stored_through_mlflow_and_answers_from_there(store: Any) -> None:
    run_id = json.loads(store.inside(*store.train_few(EPOCHS)).stdout)["run_id"]
    run = store.tracked(run_id)["info"]
    assert run["status"] == "FINISHED" and run["artifact_uri"].startswith("mlflow-artifacts:/")
    there = store.mlflow_get("artifacts/list", run_id=run["run_id"], path="report")["files"]
    assert {file["path"] for file in there} == {"report/classes.csv", "report/mistakes.png", "report/golden.json"}
    search = {"filter": f"name = 'fashion-mnist' and run_id = '{run['run_id']}'"}
    (version,) = store.mlflow_get("model-versions/search", **search)["model_versions"]
    told = store.inside("fmnist", "evaluate", version["version"], "--data", store.few_images(), "--json").stdout
    here = store.inside("fmnist", "evaluate", run_id, "--data", store.few_images(), "--json").stdout
    assert json.loads(told)["loss"] == json.loads(here)["loss"]


def test_they_are_where_they_are_said_to_be(store: Any) -> None:
    s3 = "s3" in store.environment.get("COMPOSE_PROFILES", "")
    service, folder = ("s3", "/data/artifacts/runs") if s3 else ("mlflow", "/artifacts")
    found = store.inside("find", folder, "-name", "model.onnx", service=service).stdout.split()
    assert found
    if s3:
        assert store.inside("find", "/artifacts", "-type", "f", service="mlflow").stdout == ""
        script = "import urllib.request; urllib.request.urlopen('http://s3:9000/artifacts')"
        refused = store.inside("python", "-c", script, service="mlflow", check=False)
        assert re.search("HTTP Error 40[03]", refused.stderr)  # without its keys
        assert store.inside("python", "-c", script, check=False).returncode != 0  # the notebook does not reach it


def test_it_is_trained_on_from_the_host_and_by_make(platform: Any, tmp_path: Path) -> None:
    by_make = platform.make("platform-train", f"ARGS={' '.join(platform.train_few(EPOCHS)[2:])}")
    platform.tracked(json.loads(by_make.stdout)["run_id"])
    settings = {"FMNIST_HOME": str(platform.folder / "var"), "MLFLOW_TRACKING_URI": platform.mlflow}
    settings["FMNIST_SYNC_WAIT"] = "180"
    few = ["--data", str(platform.folder / "var" / "data" / "few")]
    command = [sys.executable, "-m", "fmnist", *platform.train_few(EPOCHS)[1:], *few]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | settings, check=True, stdout=subprocess.PIPE, text=True
    )
    run_id = json.loads(done.stdout)["run_id"]
    run = platform.tracked(run_id)
    assert run["info"]["artifact_uri"].startswith("mlflow-artifacts:/")
    in_mlflow, in_tensorboard = platform.wait(
        lambda: (found := platform.steps(run_id, "val_loss")) and len(found[1]) == EPOCHS and found,
        "TensorBoard to show it",
    )
    assert in_mlflow == in_tensorboard == [1, 2]


def test_only_with_its_file_a_gpu_is_asked_for(platform: Any) -> None:
    with_it = ["--file", "compose.yaml", "--file", "compose.gpu.yaml"]
    for files, asked in (([], False), (with_it, True)):
        told = json.loads(platform.compose(*files, "config", "--format", "json").stdout)
        assert ("devices" in json.dumps(told["services"]["notebook"].get("deploy", {}))) is asked
