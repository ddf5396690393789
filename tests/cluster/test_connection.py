import os
import re
import sys
from pathlib import Path

import pytest

from fmnist.cluster import connection, joining
from fmnist.cluster.connection import connected
from fmnist.errors import Failure, UserError

from ..helpers import free_port


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize("address", ["here", "ray://", "10.0.0.1", "10.0.0.1:x", ":6379"])
def test_what_is_no_address(address: str) -> None:
    with (
        pytest.raises(UserError, match=r"is no address; give auto, HOST:PORT or ray://HOST:PORT"),
        connected(address, 2),
    ):
        pass


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nobody_listens(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    told = rf"Ray at {re.escape(address)}: does not answer \(Connection refused\); see that it runs"
    with pytest.raises(Failure, match=told), connected(address, 2):
        pass
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(Failure, match=told), connected(None, 2):
        pass


def test_more_processors_than_there_are_are_refused_before_ray_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(
            UserError, match=r"--concurrent 9999: is more than the \d+ processors? here; give at most that, or"
        ),
        connected(None, 9999, "--concurrent"),
    ):
        pass


def test_a_session_of_the_callers_own_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    ended: list[None] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda **_: ended.append(None))
    told = pytest.raises(UserError, match=r"Ray: this process is connected to it already; ray.shutdown\(\) first")
    with told, connected(None, 1):
        pass
    assert not ended


def test_nothing_stays_where_ray_could_not_even_be_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then, too, a signal ends the process at once."""
    monkeypatch.setitem(sys.modules, "ray", None)
    made: list[None] = []
    monkeypatch.setattr(connection.tempfile, "TemporaryDirectory", lambda **_: made.append(None))
    with pytest.raises(ImportError), connected(None, 1):
        pass
    assert not made


def test_the_environment_is_as_it_was_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")  # what somebody has set stands
    before = dict(os.environ)
    with connection._environment(connection.QUIET | connection._own_environment()):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert dict(os.environ) == before


def test_other_versions_are_told_in_a_line() -> None:
    utils = pytest.importorskip("ray._private.utils")
    with pytest.raises(RuntimeError) as mismatch:
        utils.check_version_info({"ray_version": "1.2.3", "python_version": "3.9.1"}, "node 10.0.0.1")
    assert "is 1.2.3 on Python 3.9.1, here is " in joining._why_not_joined(mismatch.value, "a:1")
    assert "cannot be joined (no such luck Because of this); from" in joining._why_not_joined(chained(), "a:1")
    assert "(10001), and RAY_AUTH_MODE and RAY_AUTH_TOKEN" in joining._why_not_joined(chained(), "ray://a:1")


def test_a_client_notices_that_its_cluster_is_away() -> None:
    common, worker = pytest.importorskip("ray.util.client.common"), pytest.importorskip("ray.util.client.worker")
    kept = list(common.GRPC_OPTIONS)
    assert dict(kept)["grpc.keepalive_timeout_ms"] > 30_000
    try:
        joining._notice_silence()
        assert dict(worker.GRPC_OPTIONS) == dict(kept) | {"grpc.keepalive_timeout_ms": 30_000}
    finally:
        common.GRPC_OPTIONS[:] = kept


def chained() -> Exception:
    try:
        raise RuntimeError("no such luck") from ValueError("Because\nof this")
    except RuntimeError as error:
        return error
