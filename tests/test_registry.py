import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest

from fmnist.data.dataset import Dataset
from fmnist.errors import Failure, UserError
from fmnist.registry import Registry, make_database
from fmnist.run import Run
from fmnist.scores import Scores
from fmnist.workspace import Workspace

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future
NAME = "fashion-mnist"


@pytest.fixture
def registry(three_versions: Path, tmp_path: Path) -> Registry:
    """A registry that may be changed: the database is a copy, the files are shared."""
    shutil.copy(three_versions / "mlflow.db", tmp_path / "mlflow.db")
    return Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", NAME)


def aliases(registry: Registry) -> dict[str, int]:
    return {alias: version.number for version in registry.versions() for alias in version.aliases}


def test_the_first_version_is_the_champion(registry: Registry, journalled: Run) -> None:
    versions = registry.versions()
    assert [version.number for version in versions] == [1, 2, 3]
    assert [version.run_id[-1] for version in versions] == ["1", "2", "3"]
    assert aliases(registry) == {"champion": 1}
    result = journalled.result
    assert result is not None
    assert versions[0].sha256 == result.model_sha256
    assert versions[0].scores["test_accuracy"] == pytest.approx(result.test.accuracy)
    assert registry.has_champion()


def test_promote_moves_the_champion_and_remembers_the_one_before(registry: Registry) -> None:
    assert registry.promote("2").number == 2
    assert aliases(registry) == {"champion": 2, "previous": 1}
    registry.promote("2")  # again
    assert aliases(registry) == {"champion": 2, "previous": 1}
    registry.promote("20260101-000000-00003")
    assert aliases(registry) == {"champion": 3, "previous": 2}


def test_rollback_goes_back_and_twice_is_harmless(registry: Registry) -> None:
    with pytest.raises(UserError, match="rollback: there is no previous champion; choose a version: fmnist promote"):
        registry.rollback()
    registry.promote("3")
    for _ in range(2):
        assert registry.rollback().number == 1
        assert aliases(registry) == {"champion": 1, "previous": 1}


@pytest.mark.parametrize(
    "reference", ["champion", "1", "20260101-000000-00001", f"models:/{NAME}@champion", f"models:/{NAME}/1"]
)
def test_a_version_is_found_by_every_name(registry: Registry, reference: str) -> None:
    assert registry.find(reference).number == 1


@pytest.mark.parametrize(
    "reference", ["4", "previous", "banana", "models:/other/1", "models:/fashion-mnist@x", "models:/"]
)
def test_a_version_that_is_not_there(registry: Registry, reference: str) -> None:
    with pytest.raises(
        UserError, match=rf"^model '{reference}': there is no such version of {NAME} \(there are: 1, 2, 3\)"
    ):
        registry.find(reference)


def test_before_anything_is_tracked_there_are_none_and_nothing_is_made(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", NAME)
    assert registry.versions() == []
    with pytest.raises(UserError, match="there are: none yet"):
        registry.promote("champion")
    assert list(tmp_path.iterdir()) == []


def test_a_version_without_its_model_is_not_promoted(registry: Registry) -> None:
    mlflow.set_tracking_uri(registry.uri)  # where MLflow looks for a logged model, whatever the client was told
    client = mlflow.MlflowClient(registry.uri, registry_uri=registry.uri)
    source = registry.find("1").source
    client.create_model_version(NAME, source, tags={"sha256": "0" * 64})
    with pytest.raises(Failure, match=f"{NAME} version 4: its file in MLflow is not the one that was registered"):
        registry.promote("4")
    assert aliases(registry) == {"champion": 1}


def test_the_file_is_fetched_once_and_again_when_it_is_damaged(
    registry: Registry, journalled: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, cache = registry.find("champion"), tmp_path / "models"
    path = registry.fetch(version, cache)
    assert path.read_bytes() == journalled.model.read_bytes()
    path.write_bytes(b"x")
    assert registry.fetch(version, cache).read_bytes() == journalled.model.read_bytes()
    monkeypatch.setattr(registry, "_download", lambda *args: pytest.fail("fetched again"))
    registry.fetch(version, cache)
    assert [entry.name for entry in cache.iterdir()] == [f"{version.sha256}.onnx"]


def test_it_works_in_a_fresh_process_and_leaves_nothing_there(registry: Registry, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    code = f"""
from pathlib import Path
from fmnist.registry import Registry, make_database
registry = Registry({registry.uri!r}, {NAME!r})
print(registry.promote("2").number, registry.fetch(registry.find("2"), Path({str(tmp_path / "models")!r})).name)
"""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=place, env=variables, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", f"{registry.find('2').sha256}.onnx"], done.stderr
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "told"), [("http://127.0.0.1:9", "does not answer; start it, or set MLFLOW_TRACKING_URI")]
)
def test_an_absent_server_is_told_at_once(uri: str, told: str) -> None:
    with pytest.raises(Failure, match=f"MLflow at {uri}: {told}"):
        Registry(uri, NAME).versions()


def test_evaluate_and_predict_take_the_champion(
    fmnist: Callable[..., tuple[int, str, str]],
    home: Path,
    three_versions: Path,
    workspace: Workspace,
    dataset: Dataset,
    journalled: Run,
) -> None:
    shutil.copytree(three_versions, home)
    code, out, _ = fmnist("evaluate", "champion", "--json")
    assert code == 0
    result = journalled.result
    assert result is not None
    assert json.loads(out)["accuracy"] == result.test.accuracy
    expected = workspace.predictor(str(journalled.model)).probabilities(dataset.test.images)
    for name in (f"models:/{NAME}/2", "3", "champion"):
        np.testing.assert_array_equal(workspace.predictor(name).probabilities(dataset.test.images), expected)
    code, out, _ = fmnist("predict", Path(__file__).parent / "data" / "t10k-images-idx3-ubyte.gz", "--json")
    assert code == 0
    assert json.loads(out)["model"] == str(home / "models" / f"{result.model_sha256}.onnx")


def test_the_verbs(fmnist: Callable[..., tuple[int, str, str]], home: Path, three_versions: Path) -> None:
    assert fmnist("models") == (0, "no models yet; train one: fmnist train\n", "")
    shutil.copytree(three_versions, home)
    assert fmnist("promote", "2") == (0, "version 2 is the champion\n", "")
    code, out, _ = fmnist("models")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines() if line[1:2].isdigit()] == [
        ["1", "previous"],
        ["2", "champion"],
        ["3", "20260101-000000-00003"],
    ]
    code, out, _ = fmnist("models", "--json")
    assert [version["aliases"] for version in json.loads(out)["versions"]] == [["previous"], ["champion"], []]
    assert fmnist("rollback") == (0, "version 1 is the champion again\n", "")
    code, out, err = fmnist("promote", "banana")
    assert (code, out) == (2, "")
    assert (
        err == f"fmnist: model 'banana': there is no such version of {NAME} (there are: 1, 2, 3); see fmnist models\n"
    )


def test_a_database_whose_making_is_cut_short_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def cut(self: object, **kwargs: object) -> None:
        next(tmp_path.glob(".scratch-*")).joinpath("mlflow.db").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "search_experiments", cut)
        with pytest.raises(KeyboardInterrupt):
            make_database(uri)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.lock"]
    make_database(uri)
    inode = (tmp_path / "mlflow.db").stat().st_ino
    make_database(uri)
    assert (tmp_path / "mlflow.db").stat().st_ino == inode
    (default,) = mlflow.MlflowClient(uri).search_experiments()
    assert default.artifact_location == (tmp_path / "artifacts" / "0").as_uri()  # wherever this process runs


def test_a_tag_of_somebody_else_is_no_score(registry: Registry) -> None:
    client = mlflow.MlflowClient(registry.uri, registry.uri)
    client.set_model_version_tag(NAME, "1", "test_status", "passed")
    client.set_model_version_tag(NAME, "1", "test_f1", "unknown")
    assert set(registry.find("1").scores) == {f"{s}_{n}" for s in ("val", "test") for n in Scores._fields} - {"test_f1"}


def test_a_database_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database at all, and long enough to be taken for a file of one" * 20)
    with pytest.raises(Failure, match=r"MLflow at sqlite:.*; see whether it is in order"):
        Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", NAME).versions()
