"""A backup set of the platform, and how one state takes another's place, as far as that needs no Docker."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fmnist.errors import Failure, UserError
from fmnist.files import sha256_of
from fmnist.ops import restore
from fmnist.ops.sets import Manifest, verified, write_manifest

PLATFORM = Path(__file__).parents[1] / "platform"
ABOUT: dict[str, Any] = {"made": "2026-01-01T00:00:00+00:00", "home": "/x/var", "versions": {"mlflow": "3.17.2"}}
COUNTS = {"runs": 3}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports one of the platform's scripts."""
    monkeypatch.syspath_prepend(PLATFORM)
    for file in PLATFORM.glob("*.py"):
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
    return importlib.import_module


@pytest.fixture
def made(script: Any, tmp_path: Path) -> Path:
    """A set of a platform, without a platform."""
    root = tmp_path / "root"
    (root / "empty").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    (root / "file").chmod(0o640)
    (root / "link").symlink_to("/nowhere/else")
    (root / "run" / "lock").parent.mkdir()
    for name in ("lock", "shipping.lock", ".journal.tmp", "shipping.json"):
        (root / "run" / name).write_text(name)
    folder = tmp_path / "set"
    folder.mkdir()
    files = {"runs.tar": script("sets").pack(root, folder / "runs.tar", {root / "run" / "shipping.json": b"{}"})}
    script("sets").write_manifest(folder, {**ABOUT, "counts": COUNTS, "files": files, "platform": {"schema": "x"}})
    return folder


def test_both_modes_read_the_set_and_each_restores_its_own(made: Path, script: Any, tmp_path: Path) -> None:
    assert verified(made).counts == script("sets").verified(made)["counts"] == COUNTS
    with pytest.raises(UserError, match=r"is a set of the platform.*; put it back there: make restore FROM="):
        restore.restore(made, tmp_path / "home", "fashion-mnist")
    assert not (tmp_path / "home").exists()
    (tmp_path / "embedded").mkdir()
    write_manifest(tmp_path / "embedded", Manifest(**ABOUT, counts=COUNTS))
    with pytest.raises(script("engine").Trouble, match=r"is a set of the embedded mode; put it back with: fmnist"):
        script("sets").verified(tmp_path / "embedded")


@pytest.mark.parametrize("name", ["runs.tar", "manifest.json"])
def test_both_find_a_changed_byte(made: Path, script: Any, name: str) -> None:
    content = bytearray((made / name).read_bytes())
    for place in range(0, len(content), max(1, len(content) // 20)):
        content[place] ^= 1
        (made / name).write_bytes(content)
        with pytest.raises(Failure, match="damaged"):
            verified(made)
        with pytest.raises(script("engine").Trouble, match="damaged"):
            script("sets").verified(made)
        content[place] ^= 1


def test_what_is_no_set_is_told(made: Path, script: Any, tmp_path: Path) -> None:
    (made / "runs.tar").unlink()
    with pytest.raises(script("engine").Trouble, match=r"runs.tar: is missing from its backup set; use another"):
        script("sets").verified(made)
    with pytest.raises(script("engine").Trouble, match=r"is no backup set .*; name one of make backup"):
        script("sets").verified(tmp_path)


def test_a_folder_comes_back_as_it_was(made: Path, script: Any, tmp_path: Path) -> None:
    new = tmp_path / "new"
    script("sets").unpack(made / "runs.tar", new)
    found = {str(path.relative_to(new)) for path in new.rglob("*")}
    assert found == {"empty", "file", "link", "run", "run/shipping.json"}
    assert (new / "file").read_bytes() == b"content"
    assert (new / "file").stat().st_mode & 0o777 == 0o640
    assert (new / "file").stat().st_mtime == int((tmp_path / "root" / "file").stat().st_mtime)
    assert (new / "link").readlink() == Path("/nowhere/else")
    assert (new / "run" / "shipping.json").read_text() == "{}"


def test_what_leads_out_of_an_archive_is_refused(script: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for names in (["../outside/x"], ["/outside/x"], ["a/../../outside/x"]):
        with tarfile.open(tmp_path / "bad.tar", "w") as tar:
            for name in names:
                tar.addfile(tarfile.TarInfo(name))
        with pytest.raises(script("engine").Trouble, match="which leads out of it; use another set"):
            script("sets").unpack(tmp_path / "bad.tar", tmp_path / "new")
        (tmp_path / "new").rmdir()
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("link/x"))
    with pytest.raises(OSError, match="link"):  # nothing is written through it
        script("sets").unpack(tmp_path / "bad.tar", tmp_path / "new")
    assert list(outside.iterdir()) == []


def state(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


class Killing:
    """A `mv` that is killed, with who called it, after so many."""

    def __init__(self, folder: Path) -> None:
        self.count, real = folder / "count", shutil.which("mv")
        (folder / "mv").write_text(
            f'#!/bin/sh\nn=$(cat {self.count}); [ "$n" != 0 ] || kill -9 $PPID $$\n'
            f'echo $((n - 1)) >{self.count}; exec {real} "$@"\n'
        )
        (folder / "mv").chmod(0o755)
        self.environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}

    def run(self, script: str, place: Path, after: int = -1) -> int:
        self.count.write_text(str(after))
        command = ["sh", "-c", script, str(place), "T"]
        return subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it runs in the platform's images, which are Debian")
@pytest.mark.parametrize("killed_forward", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("killed_back", [None, 0, 1, 2, 3])
def test_artifacts_change_places_from_wherever_it_was_cut_off(
    script: Any, tmp_path: Path, killed_forward: int | None, killed_back: int | None
) -> None:
    artifacts, place = script("artifacts"), tmp_path / "volume"
    (tmp_path / "bin").mkdir()
    killing = Killing(tmp_path / "bin")
    for name, content in {
        "1/same": "old",
        "2/old": "old",
        ".before-0/x": "y",
        ".next/1/same": "new",
        ".next/.n": "n",
    }.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content)
    before = state(place)
    if killed_forward is not None:
        assert killing.run(artifacts.FUNCTIONS + artifacts.FORWARD, place, killed_forward) != 0 or killed_forward == 3
    if killed_back is None:
        assert killing.run(artifacts.FUNCTIONS + artifacts.FORWARD, place) == 0
        kept = place / ".before-T"
        assert kept.stat().st_mode & 0o777 == 0  # who serves artifacts cannot look into it
        kept.chmod(0o700)
        assert sorted(state(place)) == [".before-0/x", ".before-T/1/same", ".before-T/2/old", ".n", "1/same"]
        assert (place / "1" / "same").read_text() == "new"
        return
    killing.run(artifacts.FUNCTIONS + artifacts.BACK, place, killed_back)
    assert killing.run(artifacts.FUNCTIONS + artifacts.BACK, place) == 0
    assert state(place) == before
    assert not (place / ".before-T").exists()


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("killed", range(5))
def test_folders_change_places_from_wherever_it_was_cut_off(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: int, forward: bool
) -> None:
    turns, replace, left = script("turns"), Path.replace, [killed]
    current, new, kept = tmp_path / "runs", tmp_path / ".next" / "runs", tmp_path / "before" / "runs"
    for folder in (current, new):
        folder.mkdir(parents=True)
        (folder / "which").write_text(folder.parent.name)

    def cut_off(path: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return replace(path, target)

    def turn(forward: bool) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", cut_off)
            try:
                turns._turn_folder(current, new, kept, forward)
            except KeyboardInterrupt:
                left[0] = 5

    turn(True)
    turn(forward)
    turn(forward)
    assert (current / "which").read_text() == (".next" if forward else tmp_path.name)
    assert (kept if forward else new).exists() and not (new if forward else kept).exists()


def test_what_was_cut_off_is_told_by_every_verb_but_its_own(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = script("turns")
    monkeypatch.setattr(turns, "PLAN", tmp_path / "turn.json")
    turns.check_nothing_cut_off()
    turns.note(turns.new_plan("restore", "T", counts=COUNTS))
    assert turns.pending("restore")["counts"] == json.loads(json.dumps(COUNTS))
    for verb in (None, "upgrade"):
        with pytest.raises(script("engine").Trouble, match=r"make restore: was cut off here; call it again"):
            turns.pending(verb)


def test_runs_of_the_hosts_venv_are_known_as_sent_under_the_new_address(script: Any, tmp_path: Path) -> None:
    restoring = script("restoring")
    (tmp_path / "1").mkdir()
    lanes = ["mlflow http://localhost:5100", "tensorboard /x/var/tensorboard", "mlflow http://mlflow:5000"]
    (tmp_path / "1" / "shipping.json").write_text(json.dumps({lane: {"sent": 1} for lane in lanes}))
    restoring.settings = dict
    restoring._move_on_paper(tmp_path, {"home": "/x/var", "platform": {"mlflow_port": "5100"}})
    logs = f"tensorboard {PLATFORM.parent / 'var' / 'tensorboard'}"
    assert list(json.loads((tmp_path / "1" / "shipping.json").read_text())) == [
        "mlflow http://localhost:5000",
        logs,
        lanes[2],
    ]
