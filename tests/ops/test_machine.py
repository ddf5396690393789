"""What doctor says of the machine."""

import os
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from fmnist.ops import machine
from fmnist.ops.finding import Finding
from fmnist.ports import Port

from ..helpers import Quiet, free_port, web_server


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where nvidia-smi is looked for: nothing else is on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder / "nvidia-smi"


def answers(driver: Path, script: str) -> None:
    driver.write_text(f"#!/bin/sh\n{script}\n")
    driver.chmod(0o755)


def test_this_python_will_do_and_an_older_one_will_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.python().state == "ok"
    monkeypatch.setattr(machine.platform, "python_version", lambda: "3.10.4")
    finding = machine.python()
    assert finding.state == "bad" and ">=3.11" in finding.remedy


def test_a_machine_without_a_gpu(driver: Path) -> None:
    assert machine.gpu().state == "off"


@pytest.mark.parametrize(("build", "state"), [("2.9.1", "ok"), ("2.9.1+cpu", "warning")])
def test_gpus_are_named_and_a_pytorch_that_cannot_use_them(
    driver: Path, monkeypatch: pytest.MonkeyPatch, build: str, state: str
) -> None:
    answers(driver, "echo NVIDIA L4, 23034 MiB; echo NVIDIA L4, 23034 MiB")
    monkeypatch.setattr(machine, "version", lambda name: build)
    finding = machine.gpu()
    assert finding.state == state and finding.found.startswith("NVIDIA L4, 23034 MiB; NVIDIA L4, 23034 MiB")


@pytest.mark.parametrize(
    "script", ["echo the driver is of another version >&2; exit 18", "exit 0", "exec /bin/sleep 3"]
)
def test_a_driver_that_fails_is_a_warning(driver: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(machine, "PATIENCE", 0.2)
    answers(driver, script)
    finding = machine.gpu()
    assert finding.state == "warning" and finding.found and "driver" in finding.remedy


def test_a_clock_that_shows_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.clock(tmp_path, "sqlite:///none").state == "ok"
    later = time.time() + 3600
    (tmp_path / "runs").mkdir()
    os.utime(tmp_path / "runs", (later, later))
    finding = machine.clock(tmp_path, "sqlite:///none")
    assert finding.state == "warning" and "files in" in finding.found
    monkeypatch.setattr(machine.time, "time", lambda: 86400.0)
    finding = machine.clock(tmp_path, "sqlite:///none")
    assert finding.state == "warning" and finding.found.startswith("1970-01-02 00:00:00 UTC: that has long passed")


@pytest.mark.parametrize(
    ("ahead", "state", "told"),
    [(0, "ok", "as MLflow's server says too"), (600, "warning", "s ahead of it"), (-600, "warning", "s behind it")],
)
def test_a_server_whose_clock_is_another(tmp_path: Path, ahead: int, state: str, told: str) -> None:
    class Answer(Quiet):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + ahead, usegmt=True)

        def do_GET(self) -> None:
            self.reply(200)

    with web_server(Answer) as address:
        finding = machine.clock(tmp_path, address)
    assert finding.state == state and finding.found.endswith(told)


def test_a_server_that_is_away_says_nothing_of_the_clock(tmp_path: Path) -> None:
    assert machine.clock(tmp_path, f"http://127.0.0.1:{free_port()}").state == "ok"


def test_a_port_that_somebody_else_holds_is_a_warning() -> None:
    wanted = Port("MLflow", free_port(), "FMNIST_MLFLOW_PORT")
    assert machine.port(wanted) == Finding(f"port {wanted.number}, MLflow", "ok", "free")
    listen = (
        "import socket, sys; held = socket.create_server(('127.0.0.1', int(sys.argv[2]))); print(); sys.stdin.read()"
    )
    for name, state in {"other": "warning", "fmnist": "ok"}.items():
        command = [sys.executable, "-c", listen, name, str(wanted.number)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            finding = machine.port(wanted)
            holder.communicate()
        assert finding.state == state and f"(pid {holder.pid}, user " in finding.found
        assert "set FMNIST_MLFLOW_PORT to another port" in finding.remedy or state == "ok"
