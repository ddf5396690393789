"""The trainer and its shipper are killed with -9 at random moments; what was committed is there once, and nothing else.

`make test-faults FULL=1` tries 20 times, without FULL twice.
"""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from .conftest import TRAIN, Place

TRIES = 20 if os.environ.get("FULL") else 2

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future


@pytest.mark.parametrize("seed", range(TRIES))
def test_kill_9_at_a_random_moment_and_resume(tmp_path: Path, undisturbed: str, seed: int) -> None:
    chance, place = random.Random(seed), Place(tmp_path)
    for arguments in (TRAIN, ("train", "--resume", "latest")):
        process = place.start(*arguments)
        place.wait_for("runs/*/lock")
        time.sleep(chance.uniform(0, 6))
        process.send_signal(signal.SIGKILL)
        place.kill_shipper()  # or it would send the rest of what was committed
        process.communicate()
    done = place.run("train", "--resume", "latest")
    assert done.returncode == 0, done.stderr
    assert place.run("sync").returncode == 0
    assert place.weights == undisturbed
    place.check_tracked_once()


def test_two_first_trainings_at_once(tmp_path: Path) -> None:
    """Both find no database, no experiment and no registered model."""
    place = Place(tmp_path)
    both = [place.start(*TRAIN, "--seed", str(seed)) for seed in (1, 2)]
    for process in both:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        assert "not all of it" not in errors
    assert place.run("sync").returncode == 0
    versions = json.loads(place.run("models", "--json").stdout)["versions"]
    runs = {path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()}
    assert {version["run_id"] for version in versions} == runs
    assert len(runs) == 2
    assert sorted(version["aliases"] for version in versions) == [[], ["champion"]]
