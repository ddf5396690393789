"""The trainer and its shipper are killed with -9 at random moments; what was committed is there once, and nothing else.

`make test-faults FULL=1` tries 20 times, without FULL twice.
"""

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
