"""What the platform's verbs say when something is not right: one line each."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def built(make_platform: Callable[..., Any]) -> Any:
    """A platform of its own, that never starts."""
    return make_platform()


def test_without_an_engine_it_says_so(built: Any, tmp_path: Path) -> None:
    told = built.complaint("start", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert re.fullmatch(r"docker: its engine does not answer \(.*\); start it, or get the right to use it", told)


@pytest.mark.parametrize(
    ("engine_version", "compose_version", "told"),
    [
        ("20.10.24", "2.26.1", "docker: its engine 20.10.24: is too old; install 24.0 or newer"),
        ("26.1.5+dfsg1", "v2.17.3", "docker compose v2.17.3: is too old; install 2.20 or newer"),
    ],
)
def test_too_old_an_engine_is_told(
    built: Any, tmp_path: Path, engine_version: str, compose_version: str, told: str
) -> None:
    fake = tmp_path / "docker"
    fake.write_text(f'#!/bin/sh\n[ "$1" = compose ] && echo {compose_version} || echo {engine_version}\n')
    fake.chmod(0o755)
    assert built.complaint("start", PATH=f"{tmp_path}:{built.environment['PATH']}") == told


def test_a_taken_port_names_its_holder(built: Any) -> None:
    port = str(built.ports["FMNIST_MLFLOW_PORT"])
    with socket.create_server(("127.0.0.1", int(port))):
        told = built.complaint("start")
    held = rf"port {port} for MLflow: is taken by .+ \(pid {os.getpid()}\); stop that, or set FMNIST_MLFLOW_PORT"
    assert re.match(held, told)


def test_a_running_make_up_is_named(built: Any, tmp_path: Path) -> None:
    port = str(built.ports["FMNIST_TENSORBOARD_PORT"])
    hold = (
        f"import socket, time; held = socket.create_server(('127.0.0.1', {port})); print(flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", hold, "fmnist", "up"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            assert f"is taken by make up (pid {other.pid})" in built.complaint("start")
        finally:
            other.kill()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"FMNIST_MLFLOW_PORT": "web"}, "FMNIST_MLFLOW_PORT 'web': is no port; give a number from 1 to 65535"),
        (
            {"FMNIST_HOST": "203.0.113.7"},
            "FMNIST_HOST '203.0.113.7': is no address of this machine; give 127.0.0.1, or",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_told(built: Any, changes: dict[str, str], told: str) -> None:
    assert built.complaint("start", **changes).startswith(told)


def test_a_missing_setting_stops_it_with_a_sentence(built: Any) -> None:
    settings = built.folder / ".env"
    before = settings.read_text()
    settings.write_text(re.sub(r"\nPLATFORM_UID=\d+\n", "\n", before))
    try:
        assert "required variable PLATFORM_UID is missing a value: give it in .env" in built.complaint("start")
    finally:
        settings.write_text(before)
