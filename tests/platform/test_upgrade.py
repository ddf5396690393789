"""`make upgrade` of a platform that really ran with an older MLflow: with a migration that fails, and with none."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OLD = "2.16.2"
LOG = f"""
import mlflow
from mlflow import MlflowClient
assert mlflow.__version__ == "{OLD}"
mlflow.set_tracking_uri("http://localhost:5000")
client = MlflowClient()
experiment = client.create_experiment("fashion-mnist", tags={{"of": "old"}})
for number in range(3):
    name = f"old-{{number}}"
    run = client.create_run(experiment, run_name=name, tags={{"fmnist.run_id": name}}).info.run_id
    client.log_param(run, "epochs", 5)
    for step in range(5):
        client.log_metric(run, "val_loss", 1 / (step + 1), step=step, timestamp=1000 + step)
    client.log_text(run, f"kept {{number}}", "report/note.txt")
    client.set_terminated(run)
client.create_registered_model("fashion-mnist")
client.create_model_version("fashion-mnist", f"{{client.get_run(run).info.artifact_uri}}/report", run)
client.set_registered_model_alias("fashion-mnist", "previous", "1")
"""
OBSTACLE = "CREATE TABLE logged_models (in_the_way int);"
"""A table that a migration between the two wants to make: those before it have been done by then."""

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def old(make_platform: Callable[..., Any]) -> Any:
    """A platform as a checkout of that MLflow's time would have made it, with runs and a model in it."""
    platform = make_platform()
    image = platform.folder / "platform" / "mlflow"
    (image / "requirements.txt").write_text(f"mlflow=={OLD}\npsycopg2-binary\nboto3\n")
    (platform.folder / "constraints.txt").write_text("sqlalchemy<2.1\n")  # it came later
    start = image / "entrypoint.sh"
    start.write_text(re.sub(r" --uvicorn-opts .*", "", start.read_text()))
    platform.compose("build", "--quiet", "mlflow")
    platform.compose("up", "--detach", "--wait")
    platform.inside("python", "-c", LOG, service="mlflow")
    shutil.copy(ROOT / "constraints.txt", platform.folder)  # the new checkout
    for name in ("requirements.txt", "entrypoint.sh"):
        shutil.copy(ROOT / "platform" / "mlflow" / name, image)
    return platform


def sql(platform: Any, query: str) -> list[str]:
    command = (
        "psql",
        "--username",
        "mlflow",
        "--dbname",
        "mlflow",
        "--no-align",
        "--tuples-only",
        "--command",
        query,
    )
    return list(platform.inside(*command, service="postgres").stdout.splitlines())


def state(platform: Any) -> dict[str, Any]:
    """Version of the tables, rows, databases, images."""
    tables = ("runs", "metrics", "params", "tags", "experiments", "registered_models", "model_versions")
    services = ("mlflow", "postgres", "notebook", "api", "tensorboard")
    return {
        "schema": sql(platform, "SELECT version_num FROM alembic_version"),
        "counts": {table: sql(platform, f"SELECT count(*) FROM {table}") for table in tables},
        "databases": sql(platform, "SELECT datname FROM pg_database ORDER BY 1"),
        "images": {service: platform.inspect(service)["Image"] for service in services},
    }


def runs(platform: Any) -> list[dict[str, Any]]:
    """As the API tells of them."""
    (experiment,) = platform.mlflow_post("experiments/search", filter="name = 'fashion-mnist'", max_results=1)[
        "experiments"
    ]
    found = platform.mlflow_post("runs/search", experiment_ids=[experiment["experiment_id"]])["runs"]
    return sorted(found, key=lambda run: run["info"]["run_name"])


def note(platform: Any, run: dict[str, Any]) -> str:
    asked = {"path": "report/note.txt", "run_uuid": run["info"]["run_id"]}
    return str(platform.http.get(f"{platform.mlflow}/get-artifact", params=asked, timeout=60).text)


def test_a_migration_that_fails_half_way_ends_where_it_began(old: Any) -> None:
    sql(old, OBSTACLE)
    before, told = state(old), runs(old)
    complaint = old.complaint("upgrade")
    assert re.fullmatch(r"upgrade: mlflow db upgrade: fails \(.*logged_models.*\); all is as it was", complaint)
    assert state(old) == before
    assert runs(old) == told and note(old, told[2]) == "kept 2"
    assert not (old.folder / "var" / "turn.json").exists()
    sql(old, "DROP TABLE logged_models;")
    old.make("start")  # it is the old one still, though there are new images by now


def test_it_comes_to_the_new_mlflow_with_all_that_was_there(old: Any) -> None:
    before, told = state(old), runs(old)
    shown = old.make("upgrade").stdout
    assert f"upgraded: MLflow {OLD} -> 3." in shown
    after = state(old)
    assert after["counts"] == before["counts"] and after["databases"] == before["databases"]
    assert after["schema"] != before["schema"] and after["images"]["mlflow"] != before["images"]["mlflow"]
    assert old.http.get(f"{old.mlflow}/version", timeout=60).text.startswith("3.")
    found = runs(old)
    assert [run["info"]["run_name"] for run in found] == [f"old-{number}" for number in range(3)]
    for was, now in zip(told, found, strict=True):
        assert now["info"]["run_id"] == was["info"]["run_id"] and now["info"]["status"] == "FINISHED"
        assert now["data"]["params"] == was["data"]["params"] and now["data"]["metrics"] == was["data"]["metrics"]
        points = old.mlflow_get("metrics/get-history", run_id=now["info"]["run_id"], metric_key="val_loss")["metrics"]
        assert [point["value"] for point in points] == [1 / (step + 1) for step in range(5)]
    assert note(old, found[2]) == "kept 2"
    model = old.mlflow_get("registered-models/get", name="fashion-mnist")["registered_model"]
    assert model["aliases"] == [{"alias": "previous", "version": "1"}]
    run_id = json.loads(old.inside(*old.train_few(1)).stdout)["run_id"]
    assert old.tracked(run_id)["info"]["status"] == "FINISHED"  # and it takes new ones
    left = old.run("docker", "images", "--quiet", f"{old.name}/*:before").stdout
    assert left == ""
