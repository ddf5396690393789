"""The disk of Postgres is full amid a training: that goes on, it is told, and once there is room all is there."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

EPOCHS = 12
FULL = """
volumes:
  database:
    driver: local
    driver_opts: {{type: none, o: bind, device: "{place}"}}
"""
FILL = "cat /dev/zero >/var/lib/postgresql/data/rest"

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can make a small disk"),
]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 150 MB, in memory, which stays when Postgres restarts."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150m,uid=999,gid=999,mode=700", "none", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def full(make_platform: Callable[..., Any], small: Path) -> Iterator[Any]:
    """A platform whose database lies on it."""
    platform = make_platform()
    (platform.folder / "full.yaml").write_text(FULL.format(place=small))
    files = platform.environment.get("COMPOSE_FILE", "compose.yaml")
    platform.environment["COMPOSE_FILE"] = f"{files}:full.yaml"
    platform.make("start")
    yield platform
    platform.remove()


def test_nothing_is_lost_where_postgres_has_no_room(full: Any, small: Path) -> None:
    before = json.loads(full.inside(*full.train_few(1)).stdout)["run_id"]
    full.inside("sh", "-c", FILL, service="postgres", check=False)
    done = full.inside("env", "FMNIST_SYNC_WAIT=20", *full.train_few(EPOCHS))
    run_id = json.loads(done.stdout)["run_id"]
    told = done.stderr.splitlines()[-1]
    assert f"run {run_id}: not all of it has been sent" in told and told.endswith("send the rest with: fmnist sync")
    (small / "rest").unlink()
    full.wait_until_healthy("postgres")
    full.wait_until_healthy("mlflow")
    full.inside("fmnist", "sync")
    whole = list(range(1, EPOCHS + 1))
    assert full.steps(run_id, "val_loss")[0] == whole
    assert full.tracked(run_id)["info"]["status"] == full.tracked(before)["info"]["status"] == "FINISHED"
    assert json.loads(full.inside("fmnist", "models", "--json").stdout)["versions"][-1]["run_id"] == run_id
