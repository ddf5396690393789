import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from fmnist.errors import Failure
from fmnist.run import Run
from fmnist.tracking.journal import Record
from fmnist.tracking.mlflow_sink import MlflowSink

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future
EXPERIMENT = "clothes"
MODEL = "clothes-model"


def uri(place: Path) -> str:
    return f"sqlite:///{place / 'mlflow.db'}"


def send(run: Run, place: Path, records: list[Record]) -> None:
    sink = MlflowSink(run.folder, uri(place), EXPERIMENT, MODEL, place / "artifacts")
    for record in records:
        sink.send(record)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def client(place: Path) -> Any:
    return mlflow.MlflowClient(uri(place), uri(place))


@pytest.fixture(scope="module")
def own(place: Path, journalled: Run) -> Run:
    """A copy of the run that is sent."""
    return Run(Path(shutil.copytree(journalled.folder, place / journalled.id)))


@pytest.fixture(scope="module")
def sent(place: Path, client: Any, own: Run) -> Any:
    """The run in MLflow, its records sent twice, the first time in pieces, as after crashes."""
    from fmnist.tracking.journal import Journal

    records = Journal(own.journal).read()
    for part in (records[:2], [records[0], *records[1:4]], records, [records[0], records[-1]]):
        send(own, place, part)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def test_a_run_holds_what_the_contract_says(sent: Any, journalled: Run, records: list[Record]) -> None:
    assert sent.info.run_name == sent.data.tags["fmnist.run_id"] == journalled.id
    assert sent.info.status == "FINISHED"
    assert sent.data.params == {name: str(value) for name, value in records[0]["params"].items()}
    tags = sent.data.tags
    assert (tags["fmnist.name"], tags["mlflow.note.content"], tags["team"]) == ("a name", "a note", "red")
    assert tags["mlflow.user"] == records[0]["facts"]["user"]
    assert {"mlflow.source.git.commit", "fmnist.torch", "fmnist.device", "fmnist.host"} <= set(tags)
    (given,) = sent.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("custom", journalled.about.data["digest"][:36])


def test_at_the_end_its_files_are_on_disk(
    sent: Any, place: Path, journalled: Run, records: list[Record], synced: set[int]
) -> None:
    send(journalled, place, [records[0], records[-1]])
    own = (path for path in (place / "artifacts").rglob("*") if path.is_file())
    assert {path.stat().st_ino for path in own} <= synced


def test_times_are_the_runs_own(sent: Any, records: list[Record]) -> None:
    assert sent.info.start_time == pytest.approx(records[0]["time"] * 1000, abs=2)
    assert sent.info.end_time == pytest.approx(records[-1]["time"] * 1000, abs=2)


def test_every_epoch_is_there_once(sent: Any, client: Any, records: list[Record]) -> None:
    for name in records[1]["scores"]:
        points = client.get_metric_history(sent.info.run_id, name)
        assert [point.step for point in points] == [1, 2, 3]
        assert [point.value for point in points] == [record["scores"][name] for record in records[1:4]]
        assert [point.timestamp for point in points] == [int(record["time"] * 1000) for record in records[1:4]]
    assert len(client.get_metric_history(sent.info.run_id, "test_f1")) == 1


def test_artifacts(sent: Any, place: Path, client: Any, records: list[Record], own: Run) -> None:
    root = Path(client.download_artifacts(sent.info.run_id, ""))
    for epoch in (1, 2, 3):
        numbers = json.loads((root / f"confusion_matrix/validation/epoch_{epoch:03}.json").read_text())
        assert numbers["rows_true_columns_predicted"] == records[epoch]["confusion"]
        assert (root / f"confusion_matrix/validation/epoch_{epoch:03}.png").read_bytes().startswith(b"\x89PNG")
    assert (root / "confusion_matrix/test.png").exists()
    assert (root / "report/mistakes.png").exists()
    assert len((root / "report/classes.csv").read_text().splitlines()) == 11
    for name in ("classes.csv", "golden.json", "mistakes.png"):  # and in the run's own folder
        assert (own.folder / "report" / name).read_bytes() == (root / "report" / name).read_bytes()
    assert sent.info.artifact_uri.startswith((place / "artifacts").as_uri())


def test_one_version_with_hash_scores_and_the_alias(
    sent: Any, client: Any, journalled: Run, records: list[Record]
) -> None:
    (version,) = client.search_model_versions(f"name = '{MODEL}'")
    assert version.run_id == sent.info.run_id
    assert version.tags["sha256"] == records[-1]["model_sha256"]
    assert float(version.tags["test_accuracy"]) == pytest.approx(records[-1]["scores"]["test_accuracy"], abs=1e-6)
    assert client.get_registered_model(MODEL).aliases == {"champion": version.version}
    assert len(client.search_logged_models([sent.info.experiment_id])) == 1


def test_the_champion_answers_without_pytorch(sent: Any, place: Path, records: list[Record]) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
import base64, json, mlflow, numpy as np
mlflow.set_tracking_uri({uri(place)!r})
model = mlflow.pyfunc.load_model("models:/{MODEL}@champion")
golden = json.load(sys.stdin)
images = np.stack([np.frombuffer(base64.b64decode(i), np.uint8).reshape(28, 28) for i in golden["images"]])
print(float(np.abs(model.predict(images)["probabilities"] - golden["probabilities"]).max()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(records[-1]["golden"]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5


def test_a_damaged_model_is_not_registered(own_copy: Run, records: list[Record], tmp_path: Path) -> None:
    own_copy.model.write_bytes(own_copy.model.read_bytes()[:-1] + b"x")
    with pytest.raises(Failure, match=r"model\.onnx: is damaged"):
        send(own_copy, tmp_path, records)
    assert mlflow.MlflowClient(uri(tmp_path), uri(tmp_path)).search_model_versions(f"name = '{MODEL}'") == []


def test_a_deleted_experiment_is_named(own_copy: Run, records: list[Record], tmp_path: Path) -> None:
    client = mlflow.MlflowClient(uri(tmp_path))
    client.delete_experiment(client.create_experiment(EXPERIMENT, (tmp_path / "a").as_uri()))
    with pytest.raises(
        Failure, match="experiment 'clothes': was deleted in MLflow; restore it there, or set MLFLOW_EXP"
    ):
        send(own_copy, tmp_path, records)


def test_a_workspace_that_was_moved_is_told_before_files_go_where_it_was(
    own_copy: Run, records: list[Record], tmp_path: Path
) -> None:
    client = mlflow.MlflowClient(uri(tmp_path))
    client.create_experiment(EXPERIMENT, (tmp_path / "before" / "artifacts").as_uri())
    with pytest.raises(Failure, match=f"keeps its files in {tmp_path}/before/artifacts, which is gone; move the work"):
        send(own_copy, tmp_path, records)
    assert not (tmp_path / "before").exists()


def test_no_client_makes_the_database_before_it_is_made_whole(
    own_copy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(address: str) -> None:
        raise ConnectionError(address)

    monkeypatch.setattr("fmnist.tracking.mlflow_sink.make_database", stop)
    with pytest.raises(ConnectionError):
        MlflowSink(own_copy.folder, uri(tmp_path), EXPERIMENT, "model", tmp_path / "artifacts")
    assert not (tmp_path / "mlflow.db").exists()


def test_a_run_that_nobody_trains_is_not_shown_as_running(own_copy: Run, records: list[Record], tmp_path: Path) -> None:
    client = mlflow.MlflowClient(uri(tmp_path))

    def status() -> str:
        (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
        return str(run.info.status)

    for abandoned, expected in ((False, "RUNNING"), (True, "KILLED"), (False, "RUNNING")):
        sink = MlflowSink(own_copy.folder, uri(tmp_path), EXPERIMENT, "model", tmp_path / "artifacts")
        sink.send(records[0])
        sink.close(abandoned=abandoned)
        assert status() == expected


def test_a_users_tag_does_not_take_the_place_of_ours(own_copy: Run, records: list[Record], tmp_path: Path) -> None:
    start = records[0] | {"tags": {"fmnist.run_id": "x", "empty": ""}}
    for _ in range(2):
        sink = MlflowSink(own_copy.folder, uri(tmp_path), EXPERIMENT, "model", tmp_path / "artifacts")
        sink.send(start)
    client = mlflow.MlflowClient(uri(tmp_path))
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert (run.data.tags["fmnist.run_id"], run.data.tags["empty"]) == (start["run_id"], "")


def test_a_run_that_several_workers_began_keeps_its_last_checkpoint_whoever_goes_on(
    own_copy: Run, records: list[Record], tmp_path: Path
) -> None:
    client = mlflow.MlflowClient(uri(tmp_path), uri(tmp_path))

    def kept() -> str:
        (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
        return Path(client.download_artifacts(run.info.run_id, "checkpoint/checkpoint")).read_text()

    (own_copy.folder / "checkpoint").write_text("of epoch 1")
    send(own_copy, tmp_path, [records[0], {**records[1], "workers": 2}])
    assert kept() == "of epoch 1"
    (own_copy.folder / "checkpoint").write_text("of epoch 2")
    send(own_copy, tmp_path, [records[0], records[2]])
    assert kept() == "of epoch 2"
