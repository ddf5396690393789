"""What `serve --cluster` is asked for, as far as it needs no Ray; with one: tests/platform/test_cluster_serving.py."""

import io
import pickle
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fmnist.cluster import serving, telling
from fmnist.cluster.serving import Replica, Replicas
from fmnist.cluster.telling import ReplicasLines
from fmnist.errors import UserError
from fmnist.run import Run
from fmnist.serve.keeper import Keeper
from fmnist.serve.releases import Absent, FileSource, SentSource
from fmnist.serve.wiring import make_plan
from fmnist.settings import Settings
from fmnist.workspace import Workspace

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(("given", "wanted"), [("1", (1, 1)), (" 12 ", (12, 12)), ("2..5", (2, 5)), ("3..3", (3, 3))])
def test_replicas_are_a_number_or_bounds(given: str, wanted: tuple[int, int]) -> None:
    replicas = Replicas.of(given)
    assert (replicas.least, replicas.most) == wanted
    assert ("autoscaling_config" in replicas.options()) is (wanted[0] < wanted[1])


@pytest.mark.parametrize("given", ["0", "-1", "3..2", "0..2", "two", "", "1..", "1...2", "1.5"])
def test_what_is_no_number_of_replicas_is_told(given: str) -> None:
    with pytest.raises(UserError, match=r"is no number of replicas; give one from 1 on, or MIN..MAX"):
        Replicas.of(given)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--replicas 2", "--replicas 2: is for a cluster; give --cluster too"),
        ("--address auto", "--address auto: is for a cluster; give --cluster too"),
        ("--cluster --replicas none", "--replicas none: is no number of replicas"),
        ("--cluster --replicas 5000", "--replicas 5000: is more than the"),
        ("--cluster --model none.onnx", "none.onnx: is not there; name an .onnx file"),
        ("--cluster --address host:6379", "MLFLOW_TRACKING_URI: is a database of this machine; give the address of an"),
    ],
)
def test_what_cannot_be_served_is_told(fmnist: Command, arguments: str, told: str) -> None:
    code, out, err = fmnist("serve", *arguments.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"fmnist: {told}") and err.count("\n") == 1


def test_an_address_where_nobody_is_is_told(fmnist: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    code, _, err = fmnist("serve", "--cluster", "--address", "127.0.0.1:1")
    assert code == 1
    assert err.startswith("fmnist: Ray at 127.0.0.1:1: does not answer (Connection refused); see that it runs")


def test_a_plan_makes_the_same_service_elsewhere(workspace: Workspace, finished: Run, tmp_path: Path) -> None:
    plan = pickle.loads(pickle.dumps(make_plan(workspace, "champion", "127.0.0.1", 8000)))
    caches = [plan.make_replica(number).keeper._cache for number in (0, 1)]
    assert [cache.name for cache in caches] == ["fashion-mnist@champion-0", "fashion-mnist@champion-1"]
    assert {cache.parent for cache in caches} == {workspace.settings.home / "serving"}


def test_a_file_that_is_sent_along_is_the_file(finished: Run, tmp_path: Path) -> None:
    here = FileSource(finished.model)
    source: Any = pickle.loads(pickle.dumps(SentSource(here)))
    assert source.find() == here.find()
    assert source.fetch(source.find(), tmp_path).read_bytes() == finished.model.read_bytes()


def test_replicas_lines_come_as_they_were_written_and_rays_own_do_not() -> None:
    told = io.StringIO()
    lines: Any = ReplicasLines(told)
    print('\x1b[36m(ServeReplica:fmnist:fmnist pid=7, ip=10.0.0.2)\x1b[0m {"a": 1}', file=lines)
    print("\x1b[33m(raylet)\x1b[0m Task failed.", file=lines)
    print("(ServeReplica:fmnist:fmnist pid=8) (in brackets)", file=lines)
    print("fmnist: a notice", file=lines, flush=True)
    assert told.getvalue() == '{"a": 1}\n(in brackets)\nfmnist: a notice\n'


class Source:
    """A registry that is away, with what would be served."""

    def find(self) -> Any:
        raise Absent("MLflow", "is away")


class Made:
    """All of a service that a replica looks at before it takes requests."""

    def __init__(self, source: Any) -> None:
        self.keeper, self.closed = Keeper(source, None, missing="no champion yet"), False

    def close(self) -> None:
        self.keeper.stop()


@pytest.fixture
def first_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = pytest.importorskip("ray.serve")
    context = SimpleNamespace(rank=SimpleNamespace(local_rank=0))
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)


@pytest.mark.usefixtures("first_rank")
def test_a_replica_that_finds_no_model_takes_no_requests_from_those_that_have_one() -> None:
    with pytest.raises(RuntimeError, match="MLflow: is away"):
        Replica(lambda number: Made(Source()))  # type: ignore[arg-type,return-value]
    source = Source()
    source.find = lambda: None  # type: ignore[method-assign]
    Replica(lambda number: Made(source))  # type: ignore[arg-type,return-value]  # there is none yet, it may come


@pytest.mark.usefixtures("first_rank")
def test_a_replica_whose_first_look_takes_long_takes_no_requests_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "FIRST_LOOK_SECONDS", 0.1)
    source, answer = Source(), threading.Event()
    source.find = answer.wait  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="the model is being loaded"):
        Replica(lambda number: Made(source))  # type: ignore[arg-type,return-value]
    answer.set()


def test_whoever_is_in_a_hurry_leaves_nothing_of_ray_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    serve, done = pytest.importorskip("ray.serve"), []
    monkeypatch.setattr(pytest.importorskip("ray"), "is_initialized", lambda: True)

    def delete(name: str) -> None:
        done.append("delete")
        raise KeyboardInterrupt

    status = SimpleNamespace(applications={}, proxies={})
    monkeypatch.setattr(serve, "delete", delete)
    monkeypatch.setattr(serve, "status", lambda: status)
    monkeypatch.setattr(serve, "shutdown", lambda: done.append("shutdown"))
    monkeypatch.setattr(serving, "_run", lambda *given: None)
    monkeypatch.setattr(serving, "connected", lambda *given, **more: nullcontext(SimpleNamespace(address="a:1")))

    def ready() -> None:
        raise KeyboardInterrupt

    front = serving.Front("127.0.0.1", 1, 1, 1, 1)
    with pytest.raises(KeyboardInterrupt):
        serving.serve_replicas(None, Replicas(1, 1), front, "a:1", ready, print)  # type: ignore[arg-type]
    assert done == ["delete", "shutdown"]


def test_what_keeps_replicas_from_coming_up_is_told_when_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, serve = pytest.importorskip("ray"), pytest.importorskip("ray.serve")
    trouble, away = "They can't start:\nno such module", RuntimeError("away")
    said = [away, "", "Upscaling from 1 to 2 replicas.", trouble, away, trouble, "", trouble]
    there, told = iter([True] * len(said)), list[str]()

    def status() -> Any:
        if isinstance(one := said.pop(0), Exception):
            raise one
        deployments = {"fmnist": SimpleNamespace(message=one)}
        return SimpleNamespace(applications={"fmnist": SimpleNamespace(deployments=deployments)})

    monkeypatch.setattr(ray, "is_initialized", lambda: next(there, False))
    monkeypatch.setattr(ray, "put", lambda value: None)
    monkeypatch.setattr(serve, "status", status)
    monkeypatch.setattr(telling, "LOOK_SECONDS", 0.01)
    with telling.looked_after(told.append) as gone:
        assert gone.wait(60)
    assert told == ["replicas: They can't start: no such module"] * 2


def test_where_ray_is_gone_no_other_is_started_to_end_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, serve = pytest.importorskip("ray"), pytest.importorskip("ray.serve")
    asked: list[str] = []
    for name in ("delete", "status", "shutdown"):
        monkeypatch.setattr(serve, name, lambda *_, name=name: asked.append(name))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    serving._end(alone=True)
    assert asked == []


def test_the_key_goes_along_and_is_asked_for(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef")
    key.chmod(0o600)
    workspace = Workspace(Settings(home=tmp_path, api_key_file=key))
    plan = pickle.loads(pickle.dumps(make_plan(workspace, "champion", "127.0.0.1", 8000)))
    key.unlink()
    assert plan.make().guard._key == b"0123456789abcdef"
