"""A set of a running platform, and that set in another platform: everything compared one by one; faults in between."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fmnist.files import sha256_of
from fmnist.ops.sets import verified
from fmnist.tracking.journal import Journal

EPOCHS = 500
"""More than any test waits for."""
STOP = """
import glob, os, signal
for place in glob.glob("/proc/[0-9]*"):
    try:
        if b"bin/fmnist\\0train" in open(f"{place}/cmdline", "rb").read():
            os.kill(int(place.rpartition("/")[2]), signal.SIGTERM)
    except OSError:
        pass
"""

pytestmark = pytest.mark.filterwarnings("ignore")


def rows(platform: Any, without: tuple[str, ...] = ()) -> list[str]:
    """All of MLflow's database, a row a line; rows that name one of these left out."""
    dump = ("pg_dump", "--username", "postgres", "--data-only", "--inserts", "mlflow")
    lines = platform.inside(*dump, service="postgres").stdout.splitlines()
    return sorted(line for line in lines if line.startswith("INSERT") and not any(name in line for name in without))


def files(platform: Any, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Artifacts and the host's own files: name -> SHA-256."""
    find = "cd /artifacts && find . -name '.before-*' -prune -o -type f -exec sha256sum {} +"
    listed = platform.inside("sh", "-c", find, service="mlflow").stdout
    found = dict(reversed(line.split(maxsplit=1)) for line in listed.splitlines())
    for root in ("var/runs", "var/sweeps", "var/tensorboard", "notebooks"):
        for path in (platform.folder / root).rglob("*"):
            passing = path.name.startswith(".") or path.name in ("lock", "shipping.lock", "shipping.log")
            if not passing and path.is_file() and not any(part in str(path) for part in without):
                found[str(path.relative_to(platform.folder))] = digest(platform, path)
    return {name: value for name, value in found.items() if not any(part in name for part in without)}


def digest(platform: Any, path: Path) -> str:
    """SHA-256; where runs were sent to is named as this platform has it, and counts as the same."""
    if path.name != "shipping.json":
        return sha256_of(path)
    text = path.read_text().replace(str(platform.folder), "HERE").replace(platform.mlflow, "MLFLOW")
    return hashlib.sha256(text.encode()).hexdigest()


def all_of(platform: Any) -> tuple[list[str], dict[str, str], list[Any]]:
    """What nothing may touch: records, files, and since when containers run."""
    started = [platform.inspect(service)["State"]["StartedAt"] for service in ("mlflow", "notebook", "api")]
    return rows(platform), files(platform), started


class Training:
    """One in a platform's notebook, for as long as the test likes."""

    def __init__(self, platform: Any, *options: str) -> None:
        self.platform, self.run = platform, options[-1] if options else ""
        command = ["docker", "compose", "exec", "--no-TTY", "notebook", *platform.train_few(EPOCHS), *options]
        quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        self.process = subprocess.Popen(command, cwd=platform.folder, env=platform.environment, **quiet)

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *_: object) -> None:
        """As Ctrl-C would: the last epoch is whole, and sent, by whoever sends it."""
        self.platform.inside("python", "-c", STOP)
        self.process.wait()
        sync = ("fmnist", "sync", self.run)
        self.platform.wait(lambda: self.platform.inside(*sync, check=False).returncode == 0, "all to be sent")


def runs(platform: Any) -> set[str]:
    return {path.parent.name for path in (platform.folder / "var" / "runs").glob("*/config.json")}


def epochs(platform: Any, run: str) -> list[dict[str, Any]]:
    """Their scores, as the run's journal has them, without how long they took."""
    records = Journal(platform.folder / "var" / "runs" / run / "journal.jsonl").read()
    scores = [record["scores"] for record in records if record["key"].startswith("epoch/")]
    return [{name: value for name, value in one.items() if name.startswith(("val_", "train_"))} for one in scores]


class Kept:
    """A set of the shared platform, made while a training logged, and what the platform held then."""

    def __init__(self, platform: Any) -> None:
        platform.inside(*platform.train_few(2))
        platform.inside("fmnist", "sync", check=False)  # nothing of other tests' is still on its way
        known = runs(platform)
        with Training(platform) as training:
            (self.run,) = platform.wait(lambda: runs(platform) - known, "the run's folder")
            training.run = self.run
            platform.wait(lambda: platform.found(self.run), "the run in MLflow")
            platform.wait(lambda: len(platform.steps(self.run, "val_loss")[0]) > 1, "its epochs in MLflow")
            before = len(epochs(platform, self.run))
            self.told = platform.make("backup").stdout
            self.uuid = platform.tracked(self.run)["info"]["run_id"]
            self.moving = (self.run, self.uuid)
            self.rows, self.files = rows(platform, self.moving), files(platform, self.moving)
            enough = before + 3
            platform.wait(lambda: len(epochs(platform, self.run)) > enough, "it to go on")
        self.set = Path(self.told.split(": whole")[0])


@pytest.fixture(scope="module")
def kept(platform: Any) -> Kept:
    return Kept(platform)


@pytest.fixture(scope="module")
def other(make_platform: Callable[..., Any], kept: Kept) -> Iterator[Any]:
    """Another machine's platform, never started, with the set in it."""
    other = make_platform()
    other.told = other.make("restore", f"FROM={kept.set}", "ARGS=--yes").stdout
    yield other
    other.remove()  # what runs after needs the memory


def test_a_set_is_made_while_a_training_logs_and_is_its_owners_alone(platform: Any, kept: Kept) -> None:
    manifest = verified(kept.set)
    assert set(manifest.files) == {
        "mlflow.dump",
        "artifacts.tar",
        "runs.tar",
        "sweeps.tar",
        "tensorboard.tar",
        "notebooks.tar",
        "settings.env",
    }
    assert all(path.stat().st_mode & 0o077 == 0 for path in (kept.set, *kept.set.iterdir()))
    assert [path.name for path in kept.set.parent.iterdir()] == [kept.set.name]
    assert platform.make("backup", f"ARGS=--verify {kept.set}").stdout == kept.told.rpartition("put it back")[0]
    assert manifest.counts["runs"] >= 2


def test_it_is_the_same_on_another_machine_in_everything(platform: Any, other: Any, kept: Kept) -> None:
    assert rows(other, kept.moving) == kept.rows
    assert len(kept.rows) > 100
    assert files(other, kept.moving) == kept.files
    assert {"model.onnx", "test.png"} <= {Path(name).name for name in kept.files}
    models = [where.mlflow_get("registered-models/get", name="fashion-mnist") for where in (platform, other)]
    assert models[0]["registered_model"]["aliases"] == models[1]["registered_model"]["aliases"] != []
    assert platform.token != other.token
    owners = {path.stat().st_uid for path in (other.folder / "var" / "runs").rglob("*")}
    assert owners == {os.getuid() or 1000}
    assert "/before-" in other.told  # what was there, though it was little
    other.wait(lambda: other.http.get(f"{other.service}/status", timeout=60).json()["model"], "the service's model")


def test_the_interrupted_run_is_sent_and_goes_on_there(platform: Any, other: Any, kept: Kept) -> None:
    sent, there = other.steps(kept.run, "val_loss")[0], epochs(other, kept.run)
    assert 1 < len(sent) <= len(there) < len(epochs(platform, kept.run))
    assert sent == list(range(1, len(sent) + 1))
    other.inside("fmnist", "sync")
    assert other.steps(kept.run, "val_loss")[0] == list(range(1, len(there) + 1))
    with Training(other, "--resume", kept.run):
        other.wait(lambda: len(epochs(other, kept.run)) > len(there), "it to go on")
    both = list(zip(epochs(other, kept.run), epochs(platform, kept.run), strict=False))
    assert len(both) > len(there)
    assert all(here == at_home for here, at_home in both)
    assert other.steps(kept.run, "val_loss")[0] == list(range(1, len(epochs(other, kept.run)) + 1))


def test_a_changed_byte_is_found_and_nothing_is_touched(other: Any, kept: Kept, tmp_path: Path) -> None:
    before = all_of(other)
    copy = tmp_path / "set"
    shutil.copytree(kept.set, copy)
    for file in sorted(copy.iterdir()):
        content = file.read_bytes()
        place = len(content) * 2 // 3
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert "damaged" in other.complaint("restore", f"FROM={copy}", "ARGS=--yes")
        file.write_bytes(content)
    assert other.complaint("restore", f"FROM={copy}").startswith("nothing was changed; that takes a yes")
    assert all_of(other) == before


def test_where_it_does_not_start_all_is_put_back(other: Any, kept: Kept) -> None:
    """Somebody takes TensorBoard's port while it is away."""
    before, port = all_of(other)[:2], other.ports["FMNIST_TENSORBOARD_PORT"]
    plan, over = other.folder / "var" / "turn.json", threading.Event()

    def take() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
                while not over.is_set() and (not plan.exists() or json.loads(plan.read_text())["forward"]):
                    time.sleep(0.05)
                return
            time.sleep(0.05)

    thief = threading.Thread(target=take)
    thief.start()
    try:
        told = other.complaint("restore", f"FROM={kept.set}", "ARGS=--yes")
    finally:
        over.set()
        thief.join()
    assert told.startswith(f"restore: port {port} for TensorBoard: is taken by")
    assert told.endswith("; all is as it was")
    assert all_of(other)[:2] == before
    assert not plan.exists()
    assert not list((other.folder / "var").glob(".next-*"))
    left = other.inside("sh", "-c", "ls -A /artifacts; psql -U postgres -Atc '\\l' | cut -d'|' -f1", service="postgres")
    assert "mlflow_next" not in left.stdout


def test_one_that_is_killed_is_told_and_finished(other: Any, kept: Kept) -> None:
    plan = other.folder / "var" / "turn.json"
    command = ["make", "--silent", "restore", f"FROM={kept.set}", "ARGS=--yes"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=other.folder, env=other.environment, start_new_session=True, **quiet) as cut:
        other.wait(plan.exists, "it to begin")
        os.killpg(cut.pid, signal.SIGKILL)
    told = other.complaint("start")
    assert told == "make restore: was cut off here; call it again: it goes on, or puts back what was there"
    assert "it goes on" in other.make("restore").stdout
    assert rows(other, kept.moving) == kept.rows
    assert files(other, kept.moving) == kept.files
    other.make("restore", "ARGS=--forget --yes")
    assert not list((other.folder / "var").glob("before-*"))
    assert "." not in other.inside("ls", "-A", "/artifacts", service="mlflow").stdout
    assert rows(other, kept.moving) == kept.rows
