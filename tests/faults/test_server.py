"""The MLflow server is away, late, killed, hanging or broken; the training does not mind, and no record is lost.

`make test-faults FULL=1` kills it 20 times, without FULL twice.
"""

import http.server
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import TRAIN, Place, Server

TRIES = 20 if os.environ.get("FULL") else 2

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future


@pytest.mark.parametrize("seed", range(TRIES))
def test_a_server_that_is_killed_at_a_random_moment(
    tmp_path: Path, server: Server, undisturbed: str, seed: int
) -> None:
    chance, place = random.Random(seed), Place(tmp_path / "home", MLFLOW_TRACKING_URI=server.address)
    server.start()
    training = place.start(*TRAIN)
    place.wait_for("runs/*/shipping.json")  # something has arrived
    time.sleep(chance.uniform(0, 5))
    server.kill()
    time.sleep(chance.uniform(0, 4))
    server.start()
    _, errors = training.communicate()
    assert training.returncode == 0, errors
    assert place.run("sync").returncode == 0
    assert place.weights == undisturbed
    place.check_tracked_once()


def test_a_server_that_comes_late(tmp_path: Path, server: Server) -> None:
    place = Place(tmp_path / "home", MLFLOW_TRACKING_URI=server.address)
    training = place.start(*TRAIN)
    place.wait_for("runs/*/journal.jsonl")
    server.start()
    _, errors = training.communicate()
    assert training.returncode == 0, errors
    assert place.run("sync").returncode == 0
    place.check_tracked_once()
    (version,) = json.loads(place.run("models", "--json").stdout)["versions"]
    assert (version["aliases"], version["run_id"]) == (["champion"], place.the_run.id)
    scored = place.run("evaluate", "champion", "--json")
    assert json.loads(scored.stdout)["accuracy"] == pytest.approx(version["scores"]["test_accuracy"], abs=1e-6)


class Broken(http.server.BaseHTTPRequestHandler):
    """Answers 500 to everything."""

    def do_GET(self) -> None:
        self.send_error(500)

    do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 - http.server's names

    def log_message(self, *args: object) -> None: ...


@pytest.fixture(params=["away", "hanging", "broken"])
def bad_address(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "away":
        yield "http://127.0.0.1:9"
    elif request.param == "hanging":
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never says a word
            yield f"http://127.0.0.1:{silent.getsockname()[1]}"
    else:
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as broken:
            threading.Thread(target=broken.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{broken.server_port}"
            broken.shutdown()


def test_a_server_that_never_answers_well(tmp_path: Path, bad_address: str) -> None:
    place = Place(tmp_path, MLFLOW_TRACKING_URI=bad_address, FMNIST_SYNC_WAIT="3")
    done = place.run(*TRAIN, "--json")
    assert done.returncode == 0, done.stderr
    run_id = json.loads(done.stdout)["run_id"]
    assert f"run {run_id}: not all of it has been sent" in done.stderr
    assert "send the rest with: fmnist sync" in done.stderr
    for command in (["sync"], ["evaluate", "champion"]):
        told = place.run(*command)
        assert told.returncode in (1, 2)
        assert told.stderr.splitlines()[-1].startswith("fmnist: ")
        assert bad_address in told.stderr.splitlines()[-1]
        assert "Traceback" not in told.stderr
    elsewhere = Place(tmp_path)  # nothing is lost: it goes to another place
    assert elsewhere.run("sync").returncode == 0
    elsewhere.check_tracked_once()


def test_a_training_that_ends_while_the_server_is_stopped(tmp_path: Path, server: Server) -> None:
    """SIGSTOP: connections are taken by the system, and hang in the middle of what was a good server."""
    place = Place(tmp_path / "home", MLFLOW_TRACKING_URI=server.address, FMNIST_SYNC_WAIT="3")
    server.start()
    training = place.start(*TRAIN)
    place.wait_for("runs/*/shipping.json")
    server.signal(signal.SIGSTOP)
    _, errors = training.communicate()
    assert training.returncode == 0, errors
    assert "not all of it has been sent" in errors
    server.signal(signal.SIGCONT)
    assert place.run("sync").returncode == 0
    place.check_tracked_once()
