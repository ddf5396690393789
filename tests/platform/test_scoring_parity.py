"""The service beside a real `mlflow models serve` of the same version: the same statuses, answers and error codes."""

import asyncio
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmnist.run import Run
from fmnist.serve.limits import Limits
from fmnist.serve.sqlite import SqliteSource
from fmnist.tracking.journal import Journal
from fmnist.tracking.mlflow_sink import MlflowSink

from ..serve.conftest import Reply, ask, make_service
from ..serve.scoring_cases import CASES, DIFFERENT, Case

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow warns of its own future
NAME = "fashion-mnist"
WAIT = 120  # seconds; a busy machine is no fault
Ask = Callable[[str, str, bytes, str | None], Reply]


@pytest.fixture(scope="module")
def registry(journalled: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which the run is version 1."""
    home = tmp_path_factory.mktemp("registry")
    run = Run(home / "runs" / "20260101-000000-00001")
    shutil.copytree(journalled.folder, run.folder)
    records = Journal(journalled.journal).read()
    sink = MlflowSink(run.folder, f"sqlite:///{home / 'mlflow.db'}", NAME, NAME, home / "artifacts")
    for record in ({**records[0], "run_id": run.id}, records[1], records[-1]):
        sink.send(record)
    return home / "mlflow.db"


@pytest.fixture(scope="module")
def real(registry: Path) -> Iterator[Ask]:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    given = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    given |= {"MLFLOW_TRACKING_URI": f"sqlite:///{registry}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    given["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{given['PATH']}"  # it starts uvicorn by name
    command = ["mlflow", "models", "serve", "--env-manager", "local", "--model-uri", f"models:/{NAME}/1"]
    log = (registry.parent / "log").open("w")
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env=given,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )

    def send(method: str, path: str, body: bytes, content_type: str | None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
        connection.request(method, path, body, {} if content_type is None else {"Content-Type": content_type})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        content = answer.read()
        connection.close()
        return Reply(answer.status, headers, content)

    try:
        until = time.monotonic() + WAIT
        while True:
            assert process.poll() is None and time.monotonic() < until, (registry.parent / "log").read_text()
            try:
                send("GET", "/ping", b"", None)
                break
            except OSError:
                time.sleep(0.1)
        yield send
    finally:
        process.terminate()
        process.wait(WAIT)
        log.close()


@pytest.fixture(scope="module")
def ours(registry: Path) -> Iterator[Ask]:
    service = make_service(SqliteSource(registry, NAME, "1"), Limits())

    def send(method: str, path: str, body: bytes, content_type: str | None) -> Reply:
        given = {} if content_type is None else {"Content-Type": content_type}
        return asyncio.run(ask(service, method, path, body, given))

    yield send
    service.close()


def facts(reply: Reply) -> tuple[Any, ...]:
    """What must be the same: not an error's text."""
    kind = reply.headers["content-type"]
    about = reply.json if reply.status >= 400 and reply.body and kind == "application/json" else {}
    error = (
        tuple(about.get(name) for name in ("error_code", "sqlstate", "error_class")) if isinstance(about, dict) else ()
    )
    return reply.status, kind, reply.headers.get("allow"), error


def both(case: Case, real: Ask, ours: Ask) -> tuple[Reply, Reply]:
    there = real("POST", "/invocations", case.body, case.content_type)
    return there, ours("POST", "/invocations", case.body, case.content_type)


def test_every_request_is_answered_as_by_the_real_server(real: Ask, ours: Ask) -> None:
    for case in CASES:
        there, here = both(case, real, ours)
        assert there.status == case.status, case.name
        assert facts(here) == facts(there), case.name
        if case.status == 200:
            assert there.json["predictions"].keys() == here.json["predictions"].keys()
            for output, rows in there.json["predictions"].items():
                np.testing.assert_allclose(here.json["predictions"][output], rows, atol=1e-6, err_msg=case.name)


def test_the_differences_are_those_that_are_told(real: Ask, ours: Ask) -> None:
    for case, status in DIFFERENT:
        there, here = both(case, real, ours)
        assert (there.status, here.status) == (status, case.status), case.name


def test_health_version_and_other_methods(real: Ask, ours: Ask) -> None:
    for path in ("/ping", "/health", "/version"):
        there, here = (send("GET", path, b"", None) for send in (real, ours))
        assert (facts(here), here.body) == (facts(there), there.body)
    for method, path in (("GET", "/invocations"), ("PUT", "/invocations"), ("POST", "/ping"), ("HEAD", "/health")):
        there, here = (send(method, path, b"", None) for send in (real, ours))
        assert facts(here) == facts(there)
        assert there.status == 405
        if method != "HEAD":
            assert here.json.keys() == there.json.keys()
