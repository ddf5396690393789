"""Trainings and sweeps on a cluster that somebody else has started, at each kind of address."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..helpers import environment_of, free_port, until

WAIT = 300  # seconds; a busy machine is no fault
KINDS = ("auto", "127.0.0.1", "ray")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of one node with two processors: its addresses."""
    port, clients = free_port(), free_port()
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2"]
    command += [f"--port={port}", f"--ray-client-server-port={clients}", "--include-dashboard=false"]
    command += ["--node-ip-address=127.0.0.1", "--disable-usage-stats", "--object-store-memory=200000000"]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1"}
    told = tmp_path_factory.mktemp("head") / "log"
    with told.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    until(lambda: "Ray runtime started" in told.read_text() or process.poll() is not None)
    assert process.poll() is None, told.read_text()
    yield dict(zip(KINDS, ("auto", f"127.0.0.1:{port}", f"ray://127.0.0.1:{clients}"), strict=True))
    begun = psutil.Process(process.pid).children(recursive=True)
    for one in (process, *begun):  # asked to end, it waits for each of its parts in turn
        one.kill()
    process.wait()


def fmnist(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    own = {"OMP_NUM_THREADS": "1", "FMNIST_TRACKING": "no", "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "fmnist", *arguments]
    return subprocess.run(
        command, env=environment_of(home) | own, capture_output=True, text=True, check=False, timeout=WAIT
    )


def result(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_there(head: dict[str, str], tmp_path: Path, kind: str) -> None:
    train = ("train", "--batch-size", "64", "--epochs", "3", "--workers", "2", "--json")
    assert result(fmnist(tmp_path / "var", *train, "--address", head[kind]))["epochs"] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_it_searches_there(head: dict[str, str], tmp_path: Path, kind: str) -> None:
    budget = ("--trials", "3", "--epochs", "2", "--concurrent", "2", "--space", "batch_size=64", "--json")
    told = result(fmnist(tmp_path / "var", "sweep", *budget, "--address", head[kind]))
    assert [row["trial"] for row in told["trials"]] == [1, 2, 3]
    assert {row["state"] for row in told["trials"]} <= {"completed", "stopped"}
    assert Path(told["recipe"]).is_file()


def test_more_workers_than_it_has_processors(head: dict[str, str], tmp_path: Path) -> None:
    done = fmnist(tmp_path / "var", "train", "--workers", "3", "--address", head["127.0.0.1"])
    told = f"--workers 3: is more than the 2 processors of Ray at {head['127.0.0.1']}; give at most that"
    assert done.returncode == 2 and told in done.stderr
