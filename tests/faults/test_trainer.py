"""The trainer is killed with -9, mostly its shipper too; what was committed is there once, and nothing else.

The moment is a line of Python, drawn from all that an undisturbed training runs in its epochs, its checkpoints' writes
or its uploads.
"""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import RESUME, TRAIN, Place

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future

SINK = "fmnist.tracking.mlflow_sink:MlflowSink"
MOMENTS = {
    "epoch": ["fmnist.training:do_epoch"],
    "checkpoint": ["fmnist.training:write_checkpoint"],
    "upload": [f"{SINK}._log_files", f"{SINK}._log_model"],
}


@pytest.fixture(scope="session")
def lines(tmp_path_factory: pytest.TempPathFactory, warm: Any) -> dict[str, int]:
    """How many lines a whole training runs at each kind of moment."""
    home = tmp_path_factory.mktemp("lines")
    fault = {"lines": [{"in": places, "count": str(home / kind)} for kind, places in MOMENTS.items()]}
    code, _, err = Place(home, warm).run(*TRAIN, fault=fault)
    assert code == 0, err
    return {kind: int((home / kind).read_text()) for kind in MOMENTS}


def kill_and_resume(place: Place, chance: random.Random, kind: str, lines: dict[str, int]) -> None:
    """Kill a training at a moment of the kind, then perhaps the resumed one, and let the last one end."""
    at, whom = chance.randint(1, lines[kind]), chance.choice(["trainer", "both"])
    code, _, err = place.run(*TRAIN, fault={"lines": [{"in": MOMENTS[kind], "at": at, "whom": whom}]})
    assert code == -signal.SIGKILL, f"line {at} of {kind}: {err}"
    if whom == "both":
        place.kill_shipper()  # or it sends the rest of what was committed, also while the training goes on
    if chance.random() < 0.3:
        again = chance.choice(list(MOMENTS))
        at = chance.randint(1, lines[again])
        place.run(*RESUME, fault={"lines": [{"in": MOMENTS[again], "at": at, "whom": "both"}]})


def check_whole(place: Place, undisturbed: str) -> None:
    place.do(*RESUME)
    place.do("sync")
    assert place.weights == undisturbed
    place.check_tracked_once()


@pytest.mark.fault("trainer killed (-9) in an epoch, resumed", 1, 40)
def test_killed_in_an_epoch(place: Place, undisturbed: str, lines: dict[str, int], seed: int) -> None:
    kill_and_resume(place, random.Random(seed), "epoch", lines)
    check_whole(place, undisturbed)


@pytest.mark.fault("trainer killed (-9) in a checkpoint's write, resumed", 1, 25)
def test_killed_in_a_checkpoint_write(place: Place, undisturbed: str, lines: dict[str, int], seed: int) -> None:
    kill_and_resume(place, random.Random(seed), "checkpoint", lines)
    check_whole(place, undisturbed)


@pytest.mark.fault("trainer killed (-9) in an artifact's upload, resumed", 1, 25)
def test_killed_in_an_upload(place: Place, undisturbed: str, lines: dict[str, int], seed: int) -> None:
    kill_and_resume(place, random.Random(seed), "upload", lines)
    check_whole(place, undisturbed)


@pytest.mark.fault("trainer killed (-9) at any time, its start included, resumed", 1, 10)
def test_killed_at_any_time(tmp_path: Path, warm: Any, undisturbed: str, seed: int) -> None:
    """From outside; its database is not there yet."""
    chance, place = random.Random(seed), Place(tmp_path, warm)
    for arguments, longest in ((TRAIN, 3), (RESUME, 6)):  # the second may be over by then
        process = place.start_cold(*arguments)
        place.wait_for("runs/*/lock")
        time.sleep(chance.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        place.kill_shipper()
        _, err = process.communicate()
        assert arguments == RESUME or process.returncode == -signal.SIGKILL, err
    check_whole(place, undisturbed)


def test_two_first_trainings_at_once(tmp_path: Path, warm: Any) -> None:
    """Both find no database, no experiment and no registered model."""
    place = Place(tmp_path, warm)
    both = [place.start(*TRAIN, "--seed", str(seed)) for seed in (1, 2)]
    for command in both:
        code, _, err = command.communicate()
        assert code == 0, err
        assert "not all of it" not in err
    place.do("sync")
    versions = json.loads(place.do("models", "--json"))["versions"]
    assert {version["run_id"] for version in versions} == {run.id for run in place.runs}
    assert len(versions) == 2
    assert sorted(version["aliases"] for version in versions) == [[], ["champion"]]
