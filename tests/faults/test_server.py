"""The MLflow server is killed, away, hanging, broken or another machine's; no training minds, and no record is lost."""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .conftest import EPOCHS, Place
from .servers import Badness, Gate, Server

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future

TRAIN = ("train", "--epochs", str(EPOCHS), "--batch-size", "2")
"""Small batches: epochs that last, beside which what is spent on tracking shows as it does beside real ones."""
MOST = 0.02
"""The share of its time that a training may spend on tracking."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """To be killed."""
    server = Server(tmp_path / "server")
    yield server
    server.kill()


@pytest.fixture(scope="session")
def sound_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It runs, behind gates; each try has an experiment of its own in it."""
    server = Server(tmp_path_factory.mktemp("sound") / "server")
    server.start()
    yield server
    server.kill()


def share(place: Place) -> dict[str, Any]:
    """The fault of being timed: nothing befalls the training."""
    return {"share": str(place.home / "share")}


def check_share(place: Place) -> None:
    tracking, work, whole = json.loads((place.home / "share").read_text())
    told = f"{tracking:.3f} of {whole:.3f} s in tracking, {work:.3f} of them of work"
    # A second is the disk's, or of whoever else has the processor; to wait for a server that hangs costs five and more.
    assert tracking <= max(MOST * whole, 1), told
    assert work <= MOST * whole, told


@pytest.mark.fault("MLflow killed (-9) while logging, started again, synced", 1, 20)
def test_a_server_that_is_killed(new_place: Callable[..., Place], server: Server, seed: int) -> None:
    chance, place = random.Random(seed), new_place(MLFLOW_TRACKING_URI=server.address)
    server.start()
    training = place.start(*TRAIN, fault=share(place))
    place.wait_for_sent(f"mlflow {server.address}", chance.randint(1, EPOCHS + 1))
    time.sleep(chance.uniform(0, 0.3))
    server.kill()
    time.sleep(chance.uniform(0, 3))
    server.start()
    code, _, err = training.communicate()
    assert code == 0, err
    place.do("sync")
    place.check_tracked_once()
    check_share(place)


def bad_to_the_end(new_place: Callable[..., Place], server: Server, badness: Badness, seed: int) -> Place:
    """Train where the server goes bad, until the gate opens; then everything is sent."""
    chance, name = random.Random(seed), f"{badness}-{seed}"
    own = {"MLFLOW_EXPERIMENT_NAME": name, "FMNIST_MODEL_NAME": name, "FMNIST_SYNC_WAIT": "1"}
    with closing(Gate(server.port, badness, chance.randint(0, 25))) as gate:
        place = new_place(MLFLOW_TRACKING_URI=gate.address, **own)
        code, _, err = place.run(*TRAIN, fault=share(place))
        assert code == 0, err
        assert f"run {place.the_run.id}: not all of it has been sent" in err
        assert "send the rest with: fmnist sync" in err
        check_share(place)
        code, _, err = place.run("sync")
        told = err.splitlines()[-1]
        assert code == 1 and told.startswith("fmnist: ") and gate.address in told and "Traceback" not in err, err
        gate.open()
        place.do("sync")
        place.check_tracked_once()
        (version,) = json.loads(place.do("models", "--json"))["versions"]
        assert (version["aliases"], version["run_id"]) == (["champion"], place.the_run.id)
    return place


@pytest.mark.fault("MLflow away for the whole run, synced later", 1, 20)
def test_a_server_that_is_away(new_place: Callable[..., Place], sound_server: Server, seed: int) -> None:
    bad_to_the_end(new_place, sound_server, "away", seed)


@pytest.mark.fault("MLflow answers 500, synced later", 1, 20)
def test_a_server_that_is_broken(new_place: Callable[..., Place], sound_server: Server, seed: int) -> None:
    bad_to_the_end(new_place, sound_server, "broken", seed)


@pytest.mark.fault("MLflow hangs, synced later", 1, 20)
def test_a_server_that_hangs(new_place: Callable[..., Place], sound_server: Server, seed: int) -> None:
    bad_to_the_end(new_place, sound_server, "hanging", seed)


@pytest.mark.fault("MLflow resets connections, synced later", 1, 20)
def test_a_server_that_resets_connections(new_place: Callable[..., Place], sound_server: Server, seed: int) -> None:
    bad_to_the_end(new_place, sound_server, "resetting", seed)


@pytest.mark.fault("MLflow's answers are lost, what is asked is done, synced later", 1, 20)
def test_a_server_whose_answers_are_lost(new_place: Callable[..., Place], sound_server: Server, seed: int) -> None:
    bad_to_the_end(new_place, sound_server, "mute", seed)


def test_another_machines_server_at_the_same_address(
    new_place: Callable[..., Place], server: Server, tmp_path: Path
) -> None:
    """As `http://mlflow:5000` in every platform: what a copied folder says was sent there, was not sent here."""
    server.start()
    place = new_place(MLFLOW_TRACKING_URI=server.address)
    place.do("train", "--epochs", str(EPOCHS), "--batch-size", "64")
    place.check_tracked_once()
    server.kill()
    other = Server(tmp_path / "other", server.port)
    try:
        other.start()
        place.do("sync", place.the_run.id)
        place.check_tracked_once()
        place.do("sync")
        place.check_tracked_once()
    finally:
        other.kill()
