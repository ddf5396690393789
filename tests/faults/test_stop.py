"""SIGTERM, SIGINT, SIGINT twice, at a random time, the start with its imports included: it exits and can be resumed."""

import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import RESUME, TRAIN, Place

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future

LIMIT = 30
"""Seconds, from the first signal, in which a command has to end."""


def stop(place: Place, chance: random.Random, undisturbed: str, *numbers: signal.Signals) -> None:
    process = place.start_cold(*TRAIN)
    if chance.random() < 0.7:
        place.wait_for("runs/*/lock")
    while not hears(process.pid):  # before, Python itself would answer
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 3))
    process.send_signal(numbers[0])
    began = time.monotonic()
    for number in numbers[1:]:
        time.sleep(chance.uniform(0, 1))
        process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT - (time.monotonic() - began))
    assert "Traceback" not in err, err
    late = [-number for number in numbers[1:]]  # one that comes when all is told ends Python itself
    assert process.returncode in (0, 128 + numbers[0], *late), err
    if process.returncode == 128 + numbers[0]:
        assert "interrupted" in err.splitlines()[-1], err
    if place.runs:
        if process.returncode and place.the_run.checkpoint.exists() and not place.the_run.finished:
            assert f"go on with: fmnist train --resume {place.the_run.id}" in err
        place.do(*RESUME)
        place.do("sync")
        assert place.weights == undisturbed
        place.check_tracked_once()


def hears(pid: int) -> bool:
    """Whether the process has set what SIGTERM does (proc(5))."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.fault("SIGTERM at any time, resumed", 1, 17)
def test_sigterm(tmp_path: Path, warm: Any, undisturbed: str, seed: int) -> None:
    stop(Place(tmp_path, warm), random.Random(seed), undisturbed, signal.SIGTERM)


@pytest.mark.fault("SIGINT at any time, resumed", 1, 17)
def test_sigint(tmp_path: Path, warm: Any, undisturbed: str, seed: int) -> None:
    stop(Place(tmp_path, warm), random.Random(100 + seed), undisturbed, signal.SIGINT)


@pytest.mark.fault("SIGINT twice at any time, resumed", 1, 16)
def test_sigint_twice(tmp_path: Path, warm: Any, undisturbed: str, seed: int) -> None:
    stop(Place(tmp_path, warm), random.Random(200 + seed), undisturbed, signal.SIGINT, signal.SIGINT)
