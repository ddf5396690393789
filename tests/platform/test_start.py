"""`make start` and what it leaves: addresses, files, who they belong to."""

import os
import re
import stat
from typing import Any

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")


def test_it_starts_healthy_and_says_where(platform: Any) -> None:
    shown = platform.make("status").stdout
    healthy = re.findall(r"^  (\w+) +Up .*\(healthy\)$", shown, re.MULTILINE)
    assert sorted(healthy) == ["api", "mlflow", "notebook", "postgres", "tensorboard"]
    page = f"{platform.notebook}/lab/tree/fashion_mnist.ipynb?token={platform.token}"
    for address in (page, platform.tensorboard, platform.mlflow, platform.service):
        assert address in shown
    logs = platform.run("docker", "logs", platform.environment["NOTEBOOK_CONTAINER"])
    assert page in logs.stdout + logs.stderr


def test_postgres_notices_a_disk_that_changes_what_it_holds(platform: Any) -> None:
    asked = ("psql", "--username", "postgres", "--no-align", "--tuples-only", "--command", "SHOW data_checksums")
    assert platform.inside(*asked, service="postgres").stdout.strip() == "on"


def test_its_files_are_made_once_and_for_their_owner_alone(platform: Any) -> None:
    files = [platform.folder / ".env", *(platform.folder / "secrets").iterdir()]
    before = {file: file.read_text() for file in files}
    identities = {service: platform.inspect(service)["Id"] for service in ("postgres", "mlflow", "notebook")}
    platform.make("start")
    assert {file: file.read_text() for file in files} == before
    assert {service: platform.inspect(service)["Id"] for service in identities} == identities
    assert stat.S_IMODE((platform.folder / "secrets").stat().st_mode) == 0o700
    assert not any(secret in before[files[0]] for file, secret in before.items() if secret and file != files[0])


def test_what_the_notebook_writes_belongs_to_who_started_it(platform: Any) -> None:
    uid = int(re.findall(r"^PLATFORM_UID=(\d+)$", (platform.folder / ".env").read_text(), re.MULTILINE)[0])
    assert uid == (os.getuid() or 1000)
    for folder in ("notebooks", "var/runs", "var/sweeps"):
        platform.inside("touch", f"/workspace/{folder}/made-in-the-notebook")
        made = platform.folder / folder / "made-in-the-notebook"
        assert made.stat().st_uid == uid
        made.unlink()
    for service in ("api", "mlflow", "tensorboard", "notebook"):
        assert platform.inside("touch", "/made", service=service, check=False).returncode != 0


def test_data_that_cannot_be_read_are_named(platform: Any) -> None:
    folder = platform.folder / "data" / "locked"
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, 0, 0)
    else:
        folder.chmod(0)
    try:
        told = platform.inside("fmnist", "data", "--data", "/workspace/data/locked", check=False)
    finally:
        folder.chmod(0o700)
        folder.rmdir()
    assert told.returncode == 2
    problem = "cannot be read (Permission denied); allow it: chmod -R a+rX"
    assert told.stderr == f"fmnist: /workspace/data/locked: {problem} /workspace/data/locked\n"
