"""MLflow's registry as the service reads it, without MLflow's package; held against a database that MLflow made."""

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlparse

import pytest

from fmnist.errors import Failure, UserError
from fmnist.registry import Registry
from fmnist.run import Run
from fmnist.serve.keeper import Keeper
from fmnist.serve.releases import Absent, FileSource, Release, Source, parsed
from fmnist.serve.rest import RestSource
from fmnist.serve.sqlite import SqliteSource
from fmnist.serve.wiring import make_service
from fmnist.settings import Settings
from fmnist.workspace import Workspace

from ..helpers import Quiet, web_server

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future
NAME = "fashion-mnist"


@pytest.fixture
def database(three_versions: Path, tmp_path: Path) -> Path:
    """A copy that may be changed; the files are shared."""
    return Path(shutil.copy(three_versions / "mlflow.db", tmp_path / "mlflow.db"))


@pytest.mark.parametrize("reference", ["champion", "1", "2", "20260101-000000-00002"])
def test_sqlite_tells_what_mlflow_tells(database: Path, reference: str, tmp_path: Path) -> None:
    source = SqliteSource(database, NAME, reference)
    release = source.find()
    known = Registry(f"sqlite:///{database}", NAME).find(reference)
    assert release is not None
    assert (release.version, release.sha256, release.run_id) == (str(known.number), known.sha256, known.run_id)
    assert (release.created, release.scores) == (known.created, known.scores)
    assert release.has_golden
    assert source.report(release, "report/golden.json").keys() == {"images", "probabilities"}
    assert source.report(release, "nothing.json") is None
    keeper = Keeper(source, None)
    keeper.look()
    assert keeper.model is not None
    assert keeper.model.confusion is not None
    assert sum(map(sum, keeper.model.confusion)) == 100


def test_a_database_is_found_by_a_relative_path_too(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(database.parent)
    release = SqliteSource(Path(database.name), NAME).find()
    assert release is not None
    assert release.version == "1"


def test_sqlite_follows_the_alias(database: Path) -> None:
    source = SqliteSource(database, NAME)
    Registry(f"sqlite:///{database}", NAME).promote("2")
    release = source.find()
    assert release is not None
    assert release.version == "2"


@pytest.mark.parametrize("reference", ["previous", "7", "20260101-000000-99999", "nobody"])
def test_what_is_not_registered_is_none(database: Path, reference: str) -> None:
    assert SqliteSource(database, NAME, reference).find() is None
    assert SqliteSource(database, "other").find() is None


def test_a_database_that_is_missing_or_none_of_mlflows(tmp_path: Path) -> None:
    assert SqliteSource(tmp_path / "none.db", NAME).find() is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bad.db").write_bytes(b"no database" * 100)
    with pytest.raises(Absent, match=r"bad.db: cannot be read \(file is not a database\); is it MLflow's\?"):
        SqliteSource(tmp_path / "bad.db", NAME).find()


def test_a_deleted_version_and_a_deleted_file(database: Path, tmp_path: Path) -> None:
    import mlflow

    source = SqliteSource(database, NAME, "2")
    release = source.find()
    assert release is not None
    uri = f"sqlite:///{database}"
    mlflow.MlflowClient(uri, uri).delete_model_version(NAME, "2")
    assert source.find() is None
    with pytest.raises(Failure, match="fashion-mnist version 9: its file is gone from MLflow; promote another"):
        source.fetch(type(release)("9", ""), tmp_path)


class FakeServer(Quiet):
    """An MLflow as its REST API answers, with what can go wrong: the real one is asked in tests/platform."""

    answers: ClassVar[dict[str, Any]] = {}
    seen: ClassVar[list[Any]] = []

    def do_GET(self) -> None:
        parts = urlparse(self.path)
        self.seen.append((parts.path, parse_qs(parts.query), self.headers.get("Authorization")))
        status, body = self.answers.get(parts.path.rpartition("/mlflow/")[2] or parts.path, (404, b"nothing"))
        self.reply(status, body)


@pytest.fixture
def server() -> Iterator[str]:
    FakeServer.answers, FakeServer.seen = {}, []
    with web_server(FakeServer) as address:
        yield address.removeprefix("http://")


def test_rest_says_none_only_where_mlflow_says_so(server: str) -> None:
    source, alias = RestSource(f"http://{server}", NAME), "registered-models/alias"
    FakeServer.answers = {alias: (404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})}
    assert source.find() is None
    FakeServer.answers = {alias: (400, {"error_code": "INVALID_PARAMETER_VALUE"})}
    assert source.find() is None
    for status, body in [(404, b"<html>"), (500, b""), (403, b""), (400, {"error_code": "BAD"}), (200, b"no json")]:
        FakeServer.answers = {alias: (status, body)}
        with pytest.raises(Absent, match=r"MLflow at http://127"):
            source.find()


def test_rest_shows_no_password_and_sends_it(server: str) -> None:
    FakeServer.answers = {}
    with pytest.raises(Absent, match=r"^MLflow at http://…@127.0.0.1:\d+: answers 404; see its log$") as told:
        RestSource(f"http://me:secret@{server}", NAME).find()
    assert "secret" not in str(told.value)
    assert FakeServer.seen[0][2] == "Basic bWU6c2VjcmV0"


def test_what_speaks_no_http_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(Absent, match=r"does not answer \(SSH-2.0-OpenSSH\); start it"):
            RestSource(f"http://127.0.0.1:{listening.getsockname()[1]}", NAME).find()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device here")
@pytest.mark.parametrize("size", [1, 10**6])
def test_a_full_disk_here_is_not_mlflows(server: str, tmp_path: Path, size: int) -> None:
    (tmp_path / "model.onnx").symlink_to("/dev/full")
    FakeServer.answers = {
        "model-versions/get-download-uri": (200, {"artifact_uri": "mlflow-artifacts:/1/models/m-1"}),
        "/api/2.0/mlflow-artifacts/artifacts/1/models/m-1/model.onnx": (200, bytes(size)),
    }
    with pytest.raises(Absent, match=r"model.onnx: its disk is full \(No space left on device\); make room there"):
        RestSource(f"http://{server}", NAME).fetch(Release("1", ""), tmp_path)


def test_a_report_that_is_damaged_is_none() -> None:
    assert parsed(b'{"images": [') is None
    assert parsed(b"[1]") == [1]


def test_another_models_version_answers_under_its_own_name(workspace: Workspace) -> None:
    service = make_service(workspace, "models:/other/3", "127.0.0.1", 8000)
    service.keeper.look()
    service.keeper.looked = True
    assert service.model_name == "other"
    assert service.keeper.absence == "other has no 3 yet; register it, or name another: --model"


def test_rest_that_does_not_answer_is_away() -> None:
    with pytest.raises(Absent, match=r"MLflow at http://127.0.0.1:1: does not answer \(.*refused.*\); start it"):
        RestSource("http://127.0.0.1:1", NAME).find()


def source_of(workspace: Workspace, model: str) -> Source:
    return make_service(workspace, model, "127.0.0.1", 8000).keeper._source


def test_every_name_of_a_model_finds_its_source(workspace: Workspace, finished: Run, tmp_path: Path) -> None:
    assert isinstance(source_of(workspace, "champion"), SqliteSource)
    assert isinstance(source_of(workspace, "3"), SqliteSource)
    assert isinstance(source_of(workspace, f"models:/{NAME}@champion"), SqliteSource)
    assert isinstance(source_of(workspace, str(finished.model)), FileSource)
    shutil.copytree(finished.folder, workspace.runs_root / finished.id)
    for reference in ("latest", finished.id):
        found = source_of(workspace, reference).find()
        assert found is not None
        assert found.version == finished.id
    remote = Workspace(Settings(MLFLOW_TRACKING_URI="http://mlflow:5000"))  # type: ignore[call-arg]
    assert isinstance(source_of(remote, "champion"), RestSource)
    for wrong, said in {
        "none.onnx": "none.onnx: is not there; name an .onnx file",
        "models:/x": "model 'models:/x': names no version",
        "20260101-000000-00000": "run",
    }.items():
        with pytest.raises(UserError, match=said):
            source_of(workspace, wrong)
    database = Workspace(Settings(MLFLOW_TRACKING_URI="postgresql://x"))  # type: ignore[call-arg]
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI: is neither an http address nor a sqlite database"):
        source_of(database, "champion")


def test_a_file_that_is_replaced_is_taken_over(models: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(models[0].read_bytes())
    keeper = Keeper(FileSource(path), None)
    keeper.look()
    before = keeper.model
    assert before is not None and before.version == "mine.onnx"
    other = tmp_path / "new"
    other.write_bytes(models[1].read_bytes())
    other.replace(path)
    keeper.look()
    assert keeper.model is not before
    assert keeper.swaps == 1


def test_a_file_is_told_apart_from_one_of_its_name_that_was_refused(models: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(models[0].read_bytes())
    keeper = Keeper(FileSource(path), None)
    keeper.look()
    path.write_bytes(models[1].read_bytes()[:1000])  # as while it is being copied
    keeper.look()
    assert keeper.refusal is not None
    path.write_bytes(models[1].read_bytes())
    keeper.look()
    assert (keeper.refusal, keeper.swaps) == (None, 1)
    path.write_bytes(b"no model")
    keeper.look()
    assert keeper.refusals == 2
    path.write_bytes(models[1].read_bytes())
    keeper.look()
    assert (keeper.refusal, keeper.swaps) == (None, 1)
