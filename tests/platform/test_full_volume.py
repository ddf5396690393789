"""A platform whose artifacts have no room: what it says, and how one gets rid of it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .platforms import PATIENT_DOCTOR

EPOCHS = 2

pytestmark = pytest.mark.filterwarnings("ignore")

FULL = """
volumes:
  artifacts:
    driver: local
    driver_opts: {type: tmpfs, device: tmpfs, o: "size=64k,uid=1000,gid=1000"}
"""


@pytest.fixture(scope="module")
def full(make_platform: Callable[..., Any]) -> Iterator[Any]:
    """A platform whose volume of artifacts takes 64 kB."""
    platform = make_platform()
    (platform.folder / "full.yaml").write_text(FULL)
    files = platform.environment.get("COMPOSE_FILE", "compose.yaml")
    platform.environment["COMPOSE_FILE"] = f"{files}:full.yaml"
    platform.make("start")
    yield platform
    platform.remove()


def test_a_full_volume_stops_no_training_and_is_named(full: Any) -> None:
    done = full.inside("env", "FMNIST_SYNC_WAIT=30", *full.train_few(EPOCHS))
    run_id = json.loads(done.stdout)["run_id"]
    notices = [line for line in done.stderr.splitlines() if "http://mlflow:5000" in line]
    assert 1 <= len(notices) <= 2, done.stderr  # once while it trains, if it lasts, and once at the end
    assert all("the training goes on, and it is sent later" in notice for notice in notices[:-1])
    assert f"run {run_id}: not all of it has been sent" in notices[-1]
    assert notices[-1].endswith("send the rest with: fmnist sync")
    # what did not fit may have left room for a little
    full.inside("sh", "-c", "cat /dev/zero >/artifacts/rest", service="mlflow", check=False)
    told = full.inside("python", "-c", PATIENT_DOCTOR, check=False)
    (finding,) = [one for one in json.loads(told.stdout)["findings"] if one["what"] == "artifact store"]
    assert finding["state"] == "bad" and "make room" in finding["remedy"] and told.returncode == 1


def test_a_lost_password_is_told_before_another_is_made(full: Any) -> None:
    password = full.folder / "secrets" / "mlflow_database_password"
    kept = password.read_text()
    password.unlink()
    told = full.complaint("start")
    assert told.startswith("secrets/mlflow_database_password: is gone, and the database was made with it; restore it")
    assert not password.exists()
    password.write_text(kept)


def test_reset_deletes_after_a_yes_and_a_start_makes_all_anew(full: Any) -> None:
    volumes = ("docker", "volume", "ls", "--quiet", "--filter", f"name={full.name}_")
    assert full.complaint("reset").startswith("nothing was deleted; that takes a yes")
    assert len(full.run(*volumes).stdout.split()) == 3
    token, runs = full.token, list((full.folder / "var" / "runs").glob("*-*"))
    full.make("reset", "ARGS=--yes")
    assert full.run(*volumes).stdout == ""
    left = {file.name for file in (full.folder / "secrets").iterdir()}
    assert left == {"api_key", "s3_credentials"}  # may be somebody's own
    assert (full.folder / ".env").exists() and list((full.folder / "var" / "runs").glob("*-*")) == runs
    full.make("start")
    assert full.token != token
    assert full.mlflow_post("experiments/search", filter="name = 'fashion-mnist'", max_results=1) == {}
