"""How one state of the platform takes another's place, and gives it back, wherever it was cut off."""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fmnist.files import sha256_of


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
    turns.note(turns.new_plan("restore", "T", counts={"runs": 3}))
    assert turns.pending("restore")["counts"] == {"runs": 3}
    for verb in (None, "upgrade"):
        with pytest.raises(script("engine").Trouble, match=r"make restore: was cut off here; call it again"):
            turns.pending(verb)


def test_nobody_exchanges_what_another_works_with(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = script("turns")
    monkeypatch.setattr(turns, "PLAN", tmp_path / "var" / "turn.json")
    told = "another make start, backup, restore, upgrade or reset is at work here; wait for it"
    refused = pytest.raises(script("engine").Trouble, match=told)
    with turns.alone(shared=True), turns.alone(shared=True), refused, turns.alone(shared=False):
        pass
    with turns.alone(shared=False), refused, turns.alone(shared=True):
        pass
    with turns.alone(shared=False):
        pass


@pytest.mark.parametrize("verb", ["backup", "restore", "upgrade", "reset"])
def test_what_may_stop_postgres_waits_for_a_start(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    turns, verbs, done = script("turns"), script("verbs"), []
    monkeypatch.setattr(turns, "PLAN", tmp_path / "turn.json")
    monkeypatch.setattr(verbs, "VERBS", {"start": done.append, verb: done.append})
    monkeypatch.setattr(sys, "argv", ["verbs.py", verb])
    with turns.alone(shared=True):
        assert verbs.main() == 1
    assert "is at work here; wait for it" in capsys.readouterr().err and done == []
    assert verbs.main() == 0 and done == [[]]


def test_what_is_undone_long_after_it_took_its_place_is_kept(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have worked with it since."""
    turns, asked = script("turns"), list[tuple[Any, ...]]()
    for name, value in {"ROOT": tmp_path, "PLAN": tmp_path / "var" / "turn.json"}.items():
        monkeypatch.setattr(turns, name, value)
    monkeypatch.setattr(turns.database, "exists", lambda name: name == turns.database.NEXT)
    monkeypatch.setattr(turns.database, "rename", lambda *pairs: asked.append(pairs))
    monkeypatch.setattr(turns.database, "drop", lambda name: asked.append((name,)))
    monkeypatch.setattr(turns.artifacts, "run", lambda place, script, *given: asked.append((script, *given)) or "")
    plan = turns.new_plan("restore", "T", folders=["runs"], store=["mlflow", "/artifacts"])
    for placed in (False, True):
        (turns.staged(plan) / "runs").mkdir(parents=True)
        turns.finish({**plan, "placed": placed})
        assert not turns.staged(plan).exists()
        assert (tmp_path / "var" / "before-T-undone" / "runs").exists() is placed
    first, second = asked[:2], asked[2:]
    assert first == [("mlflow_next",), (turns.artifacts.DISCARD,)]
    assert second[0] == (("mlflow_next", "mlflow_before_T_undone"),)
    assert second[1] == (turns.artifacts.KEEP, "T-undone")


@pytest.mark.parametrize("cut_off", [0, 1, 2])
def test_a_reset_gives_up_what_was_cut_off(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_off: int
) -> None:
    turns, asked = script("turns"), list[tuple[str, ...]]()
    runs = tmp_path / "var" / "runs"
    for name, value in {"ROOT": tmp_path, "PLAN": tmp_path / "var" / "turn.json", "FOLDERS": {"runs": runs}}.items():
        monkeypatch.setattr(turns, name, value)
    monkeypatch.setattr(turns, "docker", lambda *command, **_: asked.append(command))
    runs.mkdir(parents=True)
    (runs / "old").touch()
    turns.give_up()  # there is nothing
    plan = turns.new_plan("restore", "T", folders=["runs"], images={"x/mlflow": "sha256:1"})
    new, kept = turns.staged(plan) / "runs", turns._kept(plan) / "runs"
    for folder in (new, kept.parent):
        folder.mkdir(parents=True)
    (new / "new").touch()
    for current, target in [(runs, kept), (new, runs)][:cut_off]:
        current.replace(target)
    turns.note(plan)
    if cut_off == 1:
        runs.mkdir()  # as a start makes it
    turns.give_up()
    assert [path.name for path in runs.iterdir()] == ["old"]
    assert not turns.PLAN.exists() and not turns.staged(plan).exists()
    assert asked[0] == ("tag", "sha256:1", "x/mlflow:latest")


@pytest.mark.parametrize("failure", [RuntimeError("x"), http.client.IncompleteRead(b""), KeyboardInterrupt()])
def test_whatever_fails_all_is_put_back(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    turns, placed = script("turns"), list[bool]()
    monkeypatch.setattr(turns, "PLAN", tmp_path / "turn.json")
    monkeypatch.setattr(turns, "place", lambda plan: placed.append(plan["forward"]))
    monkeypatch.setattr(turns, "bring_up", lambda arguments: None)
    monkeypatch.setattr(turns, "finish", lambda plan: None)

    def check() -> None:
        raise failure

    with pytest.raises(script("engine").Trouble, match="all is as it was"):
        turns.carry_out(turns.new_plan("restore", "T"), check)
    assert placed == [True, False]


WAITING = """
import sys, time
sys.path.insert(0, {platform!r})
import turns, verbs
from pathlib import Path
turns.PLAN, verbs.ROOT = Path({var!r}) / "turn.json", Path({var!r}).parent

def upgrade(arguments):
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("put back", flush=True)

verbs.VERBS["upgrade"], sys.argv = upgrade, ["verbs.py", "upgrade"]
sys.exit(verbs.main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, None])
def test_a_signal_that_would_end_it_half_way_counts_as_ctrl_c(tmp_path: Path, number: signal.Signals | None) -> None:
    """But for one that it was told to outlive (nohup)."""
    (var := tmp_path / "var").mkdir()
    code = WAITING.format(platform=str(Path(__file__).parents[1] / "platform"), var=str(var))
    nohup = [] if number else ["nohup"]
    with subprocess.Popen([*nohup, sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(number or signal.SIGHUP)
        if number is None:
            time.sleep(0.5)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    told = (var / "turn.log").read_text() if number == signal.SIGHUP else rest  # its terminal is gone
    assert (process.returncode, told) == (130, "put back\n")
