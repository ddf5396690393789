"""Ten trainings at once log into one MLflow: each waits for nobody, and of each everything is there once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import TRAIN, Place
from .servers import Server

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future

TRAININGS = 10


def train_at_once(place: Place) -> None:
    trainings = [place.start(*TRAIN, "--seed", str(seed)) for seed in range(TRAININGS)]
    for code, _, err in [training.communicate() for training in trainings]:
        assert code == 0 and "Traceback" not in err, err
    place.do("sync")  # what took longer than a training waits for at its end
    assert len(place.runs) == TRAININGS
    place.check_tracked_once(TRAININGS)


@pytest.mark.fault("ten trainings at once into one SQLite database", 1, 5)
def test_into_a_database(new_place: Callable[..., Place], seed: int) -> None:
    train_at_once(new_place())


@pytest.mark.fault("ten trainings at once into one MLflow server", 1, 5)
def test_into_a_server(new_place: Callable[..., Place], tmp_path: Path, seed: int) -> None:
    server = Server(tmp_path / "server")
    server.start()
    try:
        train_at_once(new_place(MLFLOW_TRACKING_URI=server.address))
    finally:
        server.kill()
