import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fmnist.ops import containers, doctor, machine, servers
from fmnist.ops.doctor import Patient, examine
from fmnist.ops.finding import Finding, is_well
from fmnist.ports import Port
from fmnist.tracking.wiring import Destinations

from ..helpers import Quiet, free_port, web_server

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future


@pytest.fixture(autouse=True)
def no_docker(any_machine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is all of PATH: this machine's Docker is not asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def fake_docker(folder: Path, script: str) -> None:
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def make_patient(tmp_path: Path, uri: str | None = None, checkout: Path | None = None) -> Patient:
    home = tmp_path / "var"
    uri = uri or f"sqlite:///{home / 'mlflow.db'}"
    places = Destinations(uri, "fashion-mnist", "fashion-mnist", home / "artifacts", home / "tensorboard")
    names = ("TensorBoard", "MLflow", "Service")
    ports = {name: Port(name, free_port(), f"FMNIST_{name.upper()}_PORT") for name in names}
    return Patient(home, places, checkout, ports, data=tmp_path / "data")


def found(findings: list[Finding], what: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.what == what]
    return finding


class Mlflow(Quiet):
    """As much of MLflow's server as is asked; its store may be full, or forget."""

    kept: dict[str, bytes]
    full = False
    answers = 200

    def do_GET(self) -> None:
        if "/api/" not in self.path:
            self.reply(200, b"3.17.2")
        elif "experiments" in self.path:
            self.reply(self.answers, b"{}")
        else:
            self.reply(200, self.kept.get(self.path, b""))

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.full:
            self.kept[self.path] = body
        self.reply(500 if self.full else 200, b"{}")

    def do_DELETE(self) -> None:
        del self.kept[self.path]
        self.reply(200, b"{}")


@pytest.fixture
def server() -> Iterator[tuple[str, type[Mlflow]]]:
    """(its address, how it behaves)."""
    behaviour = type("Behaviour", (Mlflow,), {"kept": {}})
    with web_server(behaviour) as address:
        yield address, behaviour


def test_a_new_workspace_is_well_and_nothing_stays_of_the_look(tmp_path: Path) -> None:
    findings = examine(make_patient(tmp_path))
    assert is_well(findings)
    assert found(findings, "docker").state == "off"
    assert "not made yet" in found(findings, "database").found
    assert list((tmp_path / "var" / "artifacts").iterdir()) == []


def test_every_line_has_its_place_and_what_is_wrong_a_remedy(tmp_path: Path) -> None:
    findings = examine(make_patient(tmp_path, f"http://127.0.0.1:{free_port()}"))
    names = [finding.what for finding in findings if not finding.what.startswith("port ")]
    assert names == [
        *("python", "packages", "disk", "memory", "gpu", "clock", "docker"),
        *("secrets", "leftovers", "data", "records", "backup"),
        *("database", "artifact store", "registry", "TensorBoard", "service"),
    ]
    assert all(finding.remedy for finding in findings if finding.state in ("warning", "bad"))


@pytest.mark.parametrize(("spent", "seconds"), [(0, 0.4), (1.1, 0.3), (100, 0.2)])  # the start may have been slow
def test_what_gives_no_answer_is_bad_and_holds_up_nothing(
    tmp_path: Path, no_docker: Path, monkeypatch: pytest.MonkeyPatch, spent: float, seconds: float
) -> None:
    fake_docker(no_docker, "exec /bin/sleep 10")
    monkeypatch.setattr(doctor, "PATIENCE", 0.4)
    monkeypatch.setattr(containers, "PATIENCE", 5)  # as long as the thread goes on
    finding = found(examine(make_patient(tmp_path), spent), "docker")
    assert finding.state == "bad" and finding.found == f"no answer within {seconds} s" and finding.remedy


@pytest.mark.parametrize(("name", "look"), [("data", "holdings.inspect_data"), ("database", "stores.database")])
def test_what_takes_long_to_read_or_to_load_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, look: str
) -> None:
    monkeypatch.setattr(f"fmnist.ops.{look}", lambda *_: threading.Event().wait(8) and None)
    monkeypatch.setattr(doctor, "PATIENCE", 2)
    monkeypatch.setattr(doctor, "_is_loading", lambda: True)
    finding = found(examine(make_patient(tmp_path)), name)
    assert finding.state == "warning"
    assert finding.remedy.startswith({"data": "fmnist data takes", "database": "look again: MLflow takes"}[name])


def test_an_engine_that_hangs_is_told_and_the_rest_is_looked_at(
    tmp_path: Path, no_docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").touch()
    fake_docker(no_docker, "exec /bin/sleep 60")
    monkeypatch.setattr(containers, "PATIENCE", 0.1)
    findings = examine(make_patient(tmp_path, checkout=tmp_path))
    assert "does not answer within 0.1 s" in found(findings, "docker").found
    assert found(findings, "database").state == "ok" and is_well(findings)


def test_a_look_that_fails_is_a_line_like_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(home: Path) -> Finding:
        raise PermissionError(13, "Permission denied", str(home))

    monkeypatch.setattr(machine, "disk", broken)
    finding = found(examine(make_patient(tmp_path)), "disk")
    assert finding.state == "bad" and "Permission denied" in finding.found and finding.remedy


def test_a_full_disk_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST_DISK", 1 << 60)
    finding = found(examine(make_patient(tmp_path)), "disk")
    assert finding.state == "bad" and "make room" in finding.remedy


def test_a_file_that_is_no_database_is_bad(tmp_path: Path) -> None:
    patient = make_patient(tmp_path)
    patient.home.mkdir()
    (patient.home / "mlflow.db").write_text("something else")
    assert found(examine(patient), "database").state == "bad"


def test_artifacts_that_cannot_be_written_are_bad(tmp_path: Path) -> None:
    patient = make_patient(tmp_path)
    patient.home.mkdir()
    patient.destinations.artifacts.write_text("a file in the folder's place")
    assert found(examine(patient), "artifact store").state == "bad"


def test_a_server_is_asked_and_its_store_written_read_and_cleaned(tmp_path: Path, server: Any) -> None:
    address, behaviour = server
    findings = examine(make_patient(tmp_path, address))
    assert found(findings, "database") == Finding("database", "ok", address)
    assert found(findings, "artifact store").state == "ok"
    assert behaviour.kept == {}


@pytest.mark.parametrize(("fault", "what"), [({"full": True}, "artifact store"), ({"answers": 500}, "database")])
def test_a_server_that_fails_is_bad(tmp_path: Path, server: Any, fault: dict[str, Any], what: str) -> None:
    address, behaviour = server
    for name, value in fault.items():
        setattr(behaviour, name, value)
    finding = found(examine(make_patient(tmp_path, address)), what)
    assert finding.state == "bad" and "500" in finding.found and finding.remedy


def test_a_server_that_is_away_is_bad(tmp_path: Path) -> None:
    findings = examine(make_patient(tmp_path, f"http://127.0.0.1:{free_port()}"))
    assert [finding.what for finding in findings if finding.state == "bad"] == ["database", "artifact store"]


@pytest.mark.parametrize(
    ("engine", "compose", "state"),
    [("26.1.5+dfsg1", "2.26.1-4", "ok"), ("20.10.24", "2.26.1", "bad"), ("24.0.0", "v2.17.3", "bad")],
)
def test_an_old_docker_is_bad(tmp_path: Path, no_docker: Path, engine: str, compose: str, state: str) -> None:
    fake_docker(no_docker, f'[ "$1" = compose ] && echo {compose} || echo {engine}')
    assert found(examine(make_patient(tmp_path)), "docker").state == state


def test_an_engine_that_does_not_run_is_off(tmp_path: Path, no_docker: Path) -> None:
    fake_docker(no_docker, "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    finding = found(examine(make_patient(tmp_path)), "docker")
    assert finding.state == "off" and "Cannot connect" in finding.found


LISTED = """
{"Service": "mlflow", "State": "running", "Health": "unhealthy", "Publishers": [{"PublishedPort": 5001}]}
{"Service": "postgres", "State": "exited", "Health": "", "Publishers": null}
{"Service": "tensorboard", "State": "running", "Health": "healthy", "Publishers": [{"PublishedPort": 0}]}
"""


@pytest.mark.parametrize("one_list", [False, True])
def test_each_container_has_a_line(tmp_path: Path, no_docker: Path, one_list: bool) -> None:
    (tmp_path / ".env").touch()
    lines = f"[{','.join(LISTED.split(chr(10))[1:4])}]" if one_list else LISTED.strip()
    services = "echo api; echo mlflow; echo postgres; echo tensorboard"
    fake_docker(no_docker, f"case $2 in ps) echo '{lines}';; config) {services};; *) echo 26.0;; esac")
    findings = examine(make_patient(tmp_path, checkout=tmp_path))
    states = {finding.what: finding.state for finding in findings if finding.what.startswith("container")}
    assert states == dict.fromkeys(("container api", "container mlflow", "container postgres"), "bad") | {
        "container tensorboard": "ok"
    }
    assert found(findings, "container api").found == "there is none"
    assert found(findings, "database").state == "bad"  # the platform's MLflow is asked, at its port


def test_a_platform_with_an_older_database_is_told_to_upgrade(tmp_path: Path, no_docker: Path) -> None:
    (tmp_path / ".env").touch()
    (mlflow,) = (line for line in LISTED.splitlines() if "mlflow" in line)
    log = "mlflow.exceptions.MlflowException: Detected out-of-date database schema (found version 1, but expected 2)"
    fake_docker(no_docker, f"case $2 in ps) echo '{mlflow}';; logs) echo '{log}';; *) echo 26.0;; esac")
    finding = found(examine(make_patient(tmp_path, checkout=tmp_path)), "container mlflow")
    assert finding.state == "bad" and finding.remedy.startswith("make upgrade")


def test_a_setting_that_compose_refuses_is_bad(tmp_path: Path, no_docker: Path) -> None:
    (tmp_path / ".env").touch()
    fake_docker(no_docker, '[ "$2" = ps ] && { echo "required variable X" >&2; exit 1; } || echo 26.0')
    assert "required variable X" in found(examine(make_patient(tmp_path, checkout=tmp_path)), "platform").found


def test_a_tensorboard_that_misses_runs_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = make_patient(tmp_path)
    for run in ("one", "two"):
        (patient.destinations.logs / run).mkdir(parents=True)
        (patient.destinations.logs / run / "events.out.1").touch()
    assert found(examine(patient), "TensorBoard").found.startswith("does not run; 2 runs")
    ask = servers.ask
    monkeypatch.setattr(
        servers, "ask", lambda *all, **more: (200, b'["one"]') if "/data" in all[2] else ask(*all, **more)
    )
    finding = found(examine(patient), "TensorBoard")
    assert finding.state == "bad" and "1 in" in finding.found
