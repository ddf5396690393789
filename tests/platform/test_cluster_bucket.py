"""What a training on two nodes keeps in the bucket is enough to go on with it elsewhere."""

import json
from typing import Any

import pytest

from fmnist.run import list_runs

from .test_two_nodes import END, EPOCHS, WHOLE, training

pytestmark = pytest.mark.filterwarnings("ignore")

ELSEWHERE = ("env", "FMNIST_HOME=/tmp/elsewhere")


def test_it_goes_on_where_nothing_of_it_is(cluster: Any) -> None:
    process = training(cluster)
    cluster.inside("python", "-c", END.format("train"))
    _, told = process.communicate(timeout=120)
    assert process.returncode == 143, told
    run_id = list_runs(cluster.folder / "var" / "runs")[-1].id
    tracked = cluster.tracked(run_id)["info"]["run_id"]
    cluster.inside("fmnist", "sync")
    there = cluster.mlflow_get("artifacts/list", run_id=tracked, path="checkpoint")["files"]
    assert {file["path"] for file in there} == {"checkpoint/checkpoint", "checkpoint/config.json"}
    stored = cluster.inside("find", "/data/artifacts/runs", "-name", "checkpoint", "-type", "f", service="s3").stdout
    assert tracked in stored
    data = ("--data", cluster.few_images())
    done = cluster.inside(*ELSEWHERE, "fmnist", "train", "--resume", run_id, "--workers", "2", *data, "--json")
    result = json.loads(done.stdout)
    assert (result["run_id"], result["epochs"]) == (run_id, EPOCHS)
    assert cluster.tracked(run_id)["info"]["run_id"] == tracked
    assert cluster.steps(run_id, "val_loss")[0] == WHOLE
