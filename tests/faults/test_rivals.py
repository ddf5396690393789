"""Two processes resume the same run: one goes on, one is told."""

import random
import time
from pathlib import Path

import pytest

from ..helpers import until
from .conftest import RESUME, TRAIN, Place

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future


@pytest.mark.fault("two processes resume the same run", 2, 20)
def test_one_goes_on_and_one_is_told(place: Place, undisturbed: str, seed: int) -> None:
    chance = random.Random(seed)
    code, _, err = place.run(*TRAIN, fault={"call": "fmnist.progress:Live.epoch", "number": chance.randint(1, 3)})
    assert code == -9, err
    over = {"hold": "fmnist.training:export_model", "until": str(place.home / "over")}  # until the other has been told
    both = [place.start(*RESUME, fault=over)]
    time.sleep(chance.choice([0, chance.uniform(0, 0.05), chance.uniform(0, 0.5)]))
    both.append(place.start(*RESUME, fault=over))
    until(lambda: not all(Path(f"/proc/{command.pid}").exists() for command in both))
    (place.home / "over").touch()
    ends = {command.pid: command.communicate() for command in both}
    assert sorted(code for code, _, _ in ends.values()) == [0, 1], ends
    (winner,) = [pid for pid, (code, _, _) in ends.items() if code == 0]
    (told,) = [err.splitlines()[-1] for code, _, err in ends.values() if code]
    assert told.startswith(f"fmnist: run {place.the_run.id}: is being trained by process {winner} on "), told
    assert told.endswith("; wait for it, or stop it")
    place.do("sync")
    assert place.weights == undisturbed
    place.check_tracked_once()
