"""Postgres killed from outside, with -9, while MLflow logs: what was acknowledged is there, and all comes back.

A row of the fault table: `make test-faults FULL=1` has all its tries, `make test-platform` a few.
"""

import random
import time
from typing import Any

import pytest

from .writers import Writer

pytestmark = pytest.mark.filterwarnings("ignore")

WRITERS = 3
AFTER = 10
"""Writes that each writer still has acknowledged after the kill."""


@pytest.mark.fault("Postgres killed (-9) while logging", 2, 20)
def test_no_acknowledged_write_is_lost(platform: Any, seed: int) -> None:
    chance = random.Random(seed)
    made = platform.mlflow_post("runs/create", experiment_id="0", run_name=f"try {seed}", start_time=1)
    writers = [Writer(platform, made["run"]["info"]["run_id"], f"metric {number}") for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    platform.wait(lambda: min(writer.acknowledged for writer in writers) >= chance.randint(1, 20), "the first writes")
    time.sleep(chance.uniform(0, 0.2))
    others = platform.inspect("mlflow")
    victim = platform.kill("postgres")
    enough = [writer.acknowledged + AFTER for writer in writers]
    platform.wait(
        lambda: all(writer.acknowledged >= count for writer, count in zip(writers, enough, strict=True)),
        "MLflow to take writes again",
    )
    for writer in writers:
        writer.ending = True
        writer.join()
        assert set(range(1, writer.acknowledged + 1)) <= writer.steps
    platform.wait_until_healthy("postgres")
    platform.wait_until_healthy("mlflow")
    assert platform.inspect("postgres")["RestartCount"] == victim["RestartCount"] + 1
    assert platform.inspect("mlflow")["RestartCount"] == others["RestartCount"]
