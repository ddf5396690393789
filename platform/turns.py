"""What a restore or an upgrade has made ready takes its place; or what was there takes it again.

Both are renames: databases, folders, files in the artifacts' volume. The plan on disk tells of what and in which
direction, so that whatever cuts it off, the next `make restore` or `make upgrade` brings it to an end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Iterator

import artifacts
import database
from engine import ROOT, Trouble, compose, containers, docker
from sets import FOLDERS, sync, write_whole
from starting import bring_up

PLAN = ROOT / "var" / "turn.json"
UNDONE = "-undone"


@contextlib.contextmanager
def alone(*, shared: bool) -> Iterator[None]:
    """Nobody exchanges what is there while another command works with it. Raises Trouble."""
    PLAN.parent.mkdir(exist_ok=True)
    file = os.open(PLAN.with_name("turn.lock"), os.O_RDWR | os.O_CREAT, 0o644)  # NFS locks only what may be written
    try:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            told = "another make start, backup, restore, upgrade or reset is at work here; wait for it"
            raise Trouble(told) from error
        yield
    finally:
        os.close(file)


def give_up() -> None:
    """A plan that was cut off is none any more: folders and images are as before it; the database is to be deleted."""
    if not PLAN.exists():
        return
    plan = json.loads(PLAN.read_text())
    for name in plan["folders"]:
        _turn_folder(FOLDERS[name], staged(plan) / name, _kept(plan) / name, False)
    for name, image in plan["images"].items():
        docker("tag", image, f"{name}:latest", check=False, capture_output=True)
        docker("image", "rm", f"{name}:before", check=False, capture_output=True)
    if plan.get("placed"):
        _keep_folders(plan)
    shutil.rmtree(staged(plan), ignore_errors=True)
    with contextlib.suppress(OSError):
        _kept(plan).rmdir()  # if it is empty
    PLAN.unlink()


def _keep_undone(plan: dict[str, Any]) -> None:
    """What had taken its place, and is undone long after, may have been worked with: it is kept as well."""
    time = f"{plan['time']}{UNDONE}"
    if database.exists(database.NEXT):
        database.rename((database.NEXT, database.kept_name(time)))
    if plan["store"]:
        artifacts.run(artifacts.Store(*plan["store"]), artifacts.KEEP, time)
    _keep_folders(plan)
    print(
        f"platform: what is undone is kept, as …before-{time}; delete it with: make restore ARGS=--forget", flush=True
    )


def _keep_folders(plan: dict[str, Any]) -> None:
    kept = _kept({"time": f"{plan['time']}{UNDONE}"})
    if staged(plan).exists() and not kept.exists():
        staged(plan).replace(kept)


def new_plan(verb: str, time: str, **parts: Any) -> dict[str, Any]:
    """`time` names what is kept. `parts`: store (of artifacts), folders (names), images (name -> id), counts."""
    empty: dict[str, Any] = {"store": None, "folders": [], "images": {}, "counts": {}}
    return {"verb": verb, "time": time, "forward": False, **empty, **parts}


def pending(verb: str | None = None) -> dict[str, Any] | None:
    """The plan that was cut off. Raises Trouble if it is another verb's."""
    if not PLAN.exists():
        return None
    plan = json.loads(PLAN.read_text())
    if plan["verb"] != verb:
        told = "was cut off here; call it again: it goes on, or puts back what was there"
        raise Trouble(f"make {plan['verb']}: {told}")
    return dict(plan)


def check_nothing_cut_off() -> None:
    pending()


def carry_out(plan: dict[str, Any], check: Callable[[], None]) -> None:
    """Have everything take its place, start, and `check`; where any of it fails, all is put back. Raises Trouble."""
    try:
        place({**plan, "forward": True})
        bring_up([])
        check()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, nothing may stay stopped
        undo(plan, error)


def undo(plan: dict[str, Any], reason: BaseException) -> None:
    """All as it was before, and running. Always raises Trouble."""
    told = str(reason) or "interrupted"
    print(f"platform: {told}; all is put back", flush=True)
    # Of the plan on disk: where this is cut off, what took its place may be worked with until it is gone on with.
    placed = PLAN.exists() and json.loads(PLAN.read_text()).get("placed", False)
    place({**plan, "forward": False, "placed": placed})
    try:
        bring_up([])
    except Trouble as error:
        told += f"; then: {error}"
    finish({**plan, "forward": False})
    raise Trouble(f"{plan['verb']}: {told}; all is as it was")


def note(plan: dict[str, Any]) -> None:
    write_whole(PLAN, json.dumps(plan, indent=1).encode())


def place(plan: dict[str, Any]) -> None:
    """Go the plan's direction, from whatever an earlier try has left."""
    note(plan)
    kept, forward = database.kept_name(plan["time"]), plan["forward"]
    for name, image in plan["images"].items() if not forward else ():  # first: Postgres may not start with the new one
        docker("tag", image, f"{name}:latest")
    stop_writers()
    if forward and database.exists(database.NEXT):
        database.rename((database.CURRENT, kept), (database.NEXT, database.CURRENT))
    elif not forward and database.exists(kept):
        database.rename((database.CURRENT, database.NEXT), (kept, database.CURRENT))
    if plan["store"]:
        script = artifacts.FORWARD if forward else artifacts.BACK
        artifacts.run(artifacts.Store(*plan["store"]), script, plan["time"])
    for name in plan["folders"]:
        _turn_folder(FOLDERS[name], staged(plan) / name, _kept(plan) / name, forward)
    if forward:
        note({**plan, "placed": True})


def stop_writers() -> None:
    """Only Postgres runs then."""
    writers = [container["Service"] for container in containers() if container["Service"] != "postgres"]
    if writers:
        compose("stop", *writers, capture_output=True)
    database.wake()


def staged(plan: dict[str, Any]) -> Path:
    return ROOT / "var" / f".next-{plan['time']}"


def _kept(plan: dict[str, Any]) -> Path:
    return ROOT / "var" / f"before-{plan['time']}"


def _turn_folder(current: Path, new: Path, kept: Path, forward: bool) -> None:
    for folder in (kept.parent, new.parent):
        folder.mkdir(exist_ok=True)
    if forward and new.exists():
        if not kept.exists():
            current.replace(kept)
        new.replace(current)
    elif not forward and kept.exists():
        if current.exists() and new.exists():  # cut off between the two renames, and made anew by somebody since
            current.rmdir()
        if current.exists():
            current.replace(new)
        kept.replace(current)
    for folder in {current.parent, new.parent, kept.parent}:
        sync(folder)


def finish(plan: dict[str, Any]) -> None:
    """The plan is done: nothing is left of what was made ready; what was there stays where it is kept."""
    if plan.get("placed") and not plan["forward"]:
        _keep_undone(plan)
    with contextlib.suppress(FileNotFoundError):
        PLAN.unlink()
    shutil.rmtree(staged(plan), ignore_errors=True)
    with contextlib.suppress(OSError):
        _kept(plan).rmdir()  # if it is empty
    database.drop(database.NEXT)
    if plan["store"]:
        artifacts.run(artifacts.Store(*plan["store"]), artifacts.DISCARD)
    for name in plan["images"]:
        docker("image", "rm", f"{name}:before", check=False, capture_output=True)
