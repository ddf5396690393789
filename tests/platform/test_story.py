"""The notebook on the platform: what its run leaves in MLflow, Postgres and TensorBoard, asked as users ask."""

from typing import Any

import pytest

from fmnist.recipe import TrainConfig

SCORES = ("loss", "accuracy", "precision", "recall", "f1")
BY_EPOCH = [*(f"val_{score}" for score in SCORES), "train_loss", "train_accuracy", "learning_rate"]
EPOCHS = list(range(1, TrainConfig().epochs + 1))

pytestmark = pytest.mark.filterwarnings("ignore")


def sql(platform: Any, query: str) -> list[list[str]]:
    """Rows that Postgres has for MLflow's user."""
    command = ["psql", "--username", "mlflow", "--dbname", "mlflow", "--csv", "--tuples-only", "--command", query]
    return [line.split(",") for line in platform.inside(*command, service="postgres").stdout.split()]


def test_its_run_is_whole_in_mlflow(platform: Any, story: str) -> None:
    run = platform.tracked(story)
    assert run["info"]["status"] == "FINISHED"
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert f"\nPLATFORM_USER={tags['mlflow.user']}\n" in (platform.folder / ".env").read_text()
    latest = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert latest["test_accuracy"] >= 0.919
    for score in BY_EPOCH:
        assert platform.steps(story, score) == (EPOCHS, EPOCHS), score
    for score in SCORES:
        assert platform.steps(story, f"test_{score}") == (EPOCHS[-1:], EPOCHS[-1:])
    there = platform.mlflow_get("artifacts/list", run_id=run["info"]["run_id"], path="confusion_matrix/validation")
    names = {file["path"].rpartition("/")[2] for file in there["files"]}
    assert names == {f"epoch_{epoch:03}.{kind}" for epoch in EPOCHS for kind in ("png", "json")}


def test_its_artifacts_come_through_mlflow(platform: Any, story: str) -> None:
    run = platform.tracked(story)["info"]
    path = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
    for name, first in {"report/mistakes.png": b"\x89PNG", "report/classes.csv": b"class,"}.items():
        address = f"{platform.mlflow}/api/2.0/mlflow-artifacts/artifacts/{path}/{name}"
        assert platform.http.get(address, timeout=60).content.startswith(first), name
    mounts = {
        service: {mount["Destination"] for mount in platform.inspect(service)["Mounts"]}
        for service in ("mlflow", "notebook", "tensorboard", "postgres")
    }
    assert [service for service, places in mounts.items() if "/artifacts" in places] == ["mlflow"]


def test_its_version_is_registered_and_one_is_champion(platform: Any, story: str) -> None:
    run = platform.tracked(story)["info"]["run_id"]
    found = platform.mlflow_get("model-versions/search", filter=f"name = 'fashion-mnist' and run_id = '{run}'")
    (version,) = found["model_versions"]
    assert version["status"] == "READY"
    model = platform.mlflow_get("registered-models/get", name="fashion-mnist")["registered_model"]
    assert [alias["alias"] for alias in model["aliases"]] == ["champion"]


def test_its_rows_are_in_postgres(platform: Any, story: str) -> None:
    run = platform.tracked(story)["info"]["run_id"]
    rows = sql(platform, f"SELECT key, count(DISTINCT step) FROM metrics WHERE run_uuid = '{run}' GROUP BY key")
    counts = {key: int(count) for key, count in rows}
    assert [counts[score] for score in BY_EPOCH] == [len(EPOCHS)] * len(BY_EPOCH)
    ((superuser,),) = sql(platform, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    assert superuser == "f"


def test_its_matrices_are_in_tensorboard(platform: Any, story: str) -> None:
    answer = platform.http.get(f"{platform.tensorboard}/data/plugin/images/tags", timeout=60).json()
    assert set(answer[story]) == {"confusion_matrix/validation", "confusion_matrix/test", "mistakes"}
    shown = platform.http.get(
        f"{platform.tensorboard}/data/plugin/images/images",
        params={"run": story, "tag": "confusion_matrix/validation", "sample": 0},
        timeout=60,
    ).json()
    assert [image["step"] for image in shown] == EPOCHS
    picture = platform.http.get(f"{platform.tensorboard}/data/plugin/images/individualImage?{shown[-1]['query']}")
    assert picture.content.startswith(b"\x89PNG")


def test_a_change_of_the_code_counts_in_a_live_kernel(platform: Any, kernel: Any) -> None:
    kernel.run("%load_ext autoreload\n%autoreload 2\nfrom fmnist.recipe import make_config")
    source = platform.folder / "fmnist" / "recipe.py"
    before = source.read_text()
    try:
        source.write_text(before + "\n\ndef make_config(recipe: str) -> str:\n    return 'changed on the host'\n")
        assert kernel.value("make_config('fast')") == "'changed on the host'"
    finally:
        source.write_text(before)
