"""`make restore`: a backup set put in the place of what the platform has recorded, on any machine.

Everything is unpacked and looked at beside what is there, while that still runs; only then do the two change places, by
renames. What was there is kept, and comes back by itself if the platform does not get healthy with the new.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import artifacts
import database
from engine import ROOT, Options, Trouble, check_engine, compose, image_of, one_off, settings
from keeping import PLACE, mlflow_version
from sets import ARTIFACTS, DUMP, FOLDERS, MANIFEST, TRACKED, check_room, show, unpack, verified
from starting import check_started, prepare
from turns import carry_out, finish, new_plan, pending, staged, undo

MIGRATE = """umask 077; pass=/run/mlflow/pgpass
printf 'postgres:5432:*:mlflow:%s\\n' "$(cat /run/secrets/mlflow_database_password)" >$pass
exec mlflow db upgrade "postgresql+psycopg2://mlflow@postgres:5432/$0?passfile=$pass"
"""


def restore(arguments: list[str]) -> None:
    """Put a set in the place of what is here, which is kept; also what an earlier restore has begun."""
    parser = Options(prog="make restore", usage='make restore FROM=SET [ARGS="--yes"], or ARGS=--forget')
    parser.add_argument("--from", type=Path, dest="chosen")
    parser.add_argument("--yes", action="store_true")
    parser.add_argument("--forget", action="store_true")
    asked = parser.parse_args(arguments)
    check_engine()
    if plan := pending("restore"):
        return _go_on(plan)
    if asked.forget:
        return _forget(asked.yes)
    if asked.chosen is None:
        sets = sorted(str(found.parent) for found in PLACE.glob(f"*/{MANIFEST}")) or [f"none in {PLACE} yet"]
        raise Trouble(f"make restore: takes a set, FROM=SET; there are {', '.join(sets)}")
    manifest = verified(asked.chosen)
    check_untrained()
    _confirm(asked.yes, "This replaces all that the platform has recorded, and notebooks/; what is there now is kept.")
    prepare()
    artifacts.check_place()
    _check_fits(manifest)
    plan = _stage(asked.chosen, manifest)
    _settle(plan)
    show(asked.chosen, manifest)
    return None


def _settle(plan: dict[str, Any]) -> None:
    carry_out(plan, lambda: check_answers(plan["counts"]))
    finish(plan)
    kept = f"the database {database.kept_name(plan['time'])}, the artifacts' .before-{plan['time']}"
    print(f"restored; what was there is kept: var/before-{plan['time']}, {kept}")
    print("delete what is kept with: make restore ARGS=--forget")


def _go_on(plan: dict[str, Any]) -> None:
    check_untrained()
    if not plan["forward"]:
        undo(plan, Trouble("was cut off"))
    print("a restore was cut off here; it goes on", flush=True)
    _settle(plan)


def _confirm(is_answered: bool, what: str) -> None:
    print(what, flush=True)
    if not is_answered and (not sys.stdin.isatty() or input("Type yes: ").strip() != "yes"):
        raise Trouble("nothing was changed; that takes a yes at the terminal, or ARGS=--yes")


def check_untrained() -> None:
    """Raise Trouble where a training writes to a run, or a sweep to its folder, now."""
    for lock in (lock for name in TRACKED for lock in sorted(FOLDERS[name].glob("*/lock"))):
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                kind = {"runs": "run", "sweeps": "sweep"}[lock.parents[1].name]
                raise Trouble(f"{kind} {lock.parent.name}: is being trained; wait for it, or stop it") from error


def _check_fits(manifest: dict[str, Any]) -> None:
    there, here = manifest["platform"]["artifacts"], artifacts.destination()
    if there != here:
        raise Trouble(f"ARTIFACTS_DESTINATION {here}: the set's is {there}; make it that in .env first")
    made, ours = manifest["versions"]["mlflow"], mlflow_version(image_of("mlflow"))
    if _numbers(made) > _numbers(ours):
        raise Trouble(f"MLflow {made}: made the set's database, here is {ours}; make build with that one first")
    device = (ROOT / "var").stat().st_dev
    for name, folder in FOLDERS.items():
        if folder.is_symlink() or folder.stat().st_dev != device:
            raise Trouble(f"{folder}: lies on another disk than var/; unpack {name}.tar of the set there by hand")


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _stage(chosen: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Unpack all of it beside what is there, and look at it. Gives the plan of how it takes its place."""
    store = artifacts.store() if ARTIFACTS in manifest["files"] else None
    names = [name for name in FOLDERS if f"{name}.tar" in manifest["files"]]
    counts = {name: manifest["counts"][name] for name in database.COUNTED}
    time = f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    plan = new_plan("restore", time, store=store, folders=names, counts=counts)
    with database.awake():
        try:
            finish(plan)  # what one that was killed has made ready
            for left in (ROOT / "var").glob(".next-*"):
                shutil.rmtree(left)
            _check_room(manifest, store, names)
            staged(plan).mkdir()
            for name in names:
                unpack(chosen / f"{name}.tar", staged(plan) / name)
            _move_on_paper(staged(plan), manifest)
            if store:
                artifacts.run(store, artifacts.UNPACK, content=chosen / ARTIFACTS)
            database.load(chosen / DUMP)
            check_counts(counts, database.counts(database.NEXT))
            migrate()
            check_untrained()  # one may have begun meanwhile
        except BaseException as error:
            finish(plan)
            if isinstance(error, OSError):
                raise Trouble(f"{error.filename}: {error.strerror}; mend that; all is as it was") from error
            raise
    return plan


def _check_room(manifest: dict[str, Any], store: artifacts.Store | None, names: list[str]) -> None:
    sizes = {name: size for name, (size, _) in manifest["files"].items()}
    folders = sum(sizes[f"{name}.tar"] for name in names)
    places = [
        (str(ROOT / "var"), shutil.disk_usage(ROOT / "var").free, folders),
        ("the database's volume", database.room(), manifest["platform"]["database_bytes"]),
    ]
    if store:
        places.append(("the artifacts' volume", artifacts.weigh(store)[1], sizes[ARTIFACTS]))
    for place, free, _ in places:  # those with as much room are on one disk
        check_room(place, free, sum(needed for _, room, needed in places if abs(room - free) <= free // 100))


def _move_on_paper(unpacked: Path, manifest: dict[str, Any]) -> None:
    """How far runs of the host's venv were sent is noted by the other checkout's folder and port: name this one's."""
    port = settings().get("FMNIST_MLFLOW_PORT") or "5000"
    changes = {manifest["home"] + "/": f"{ROOT / 'var'}/"}
    for host in ("localhost", "127.0.0.1"):
        changes[f'"mlflow http://{host}:{manifest["platform"]["mlflow_port"]}"'] = f'"mlflow http://{host}:{port}"'
    for file in (file for name in TRACKED for file in unpacked.glob(f"{name}/*/shipping.json")):
        if file.is_symlink() or file.parent.is_symlink():  # else a set might have any file changed
            continue
        content = file.read_text()
        for old, new in changes.items():
            content = content.replace(old, new)
        file.write_text(content)


def migrate() -> None:
    """The next database to what the image's MLflow reads. Raises Trouble where it cannot."""
    command = one_off("mlflow", "sh", "-c", MIGRATE, database.NEXT)
    done = compose(*command, stdin=subprocess.DEVNULL, check=False, capture_output=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line or "ERROR" in line]
        told = (lines or done.stderr.strip().splitlines() or ["it says nothing"])[-1].strip()
        raise Trouble(f"mlflow db upgrade: fails ({told[:300]})")


def check_counts(wanted: dict[str, int], found: dict[str, int], *, may_be_more: bool = False) -> None:
    for name, count in wanted.items():
        if found[name] < count or (found[name] > count and not may_be_more):
            raise Trouble(f"the database: holds {found[name]} {name.replace('_', ' ')}, not {count}")


def check_answers(counts: dict[str, int]) -> None:
    """Raise Trouble unless nothing is missing in the database, and MLflow gives the champions' files as registered."""
    check_counts(counts, database.counts(), may_be_more=True)  # what trains elsewhere has sent on
    champions = """SELECT json_build_array(name, version, tags.value) FROM registered_model_aliases AS aliases
        JOIN model_version_tags AS tags USING (name, version) WHERE alias = 'champion' AND tags.key = 'sha256';"""
    for name, version, digest in map(json.loads, database.ask(champions)):
        if _digest(name, version) != digest:
            raise Trouble(f"{name} version {version}: is the champion, and its file is not the one that was registered")


def _digest(name: str, version: int) -> str:
    host, port = settings().get("FMNIST_HOST") or "127.0.0.1", settings().get("FMNIST_MLFLOW_PORT") or "5000"
    host = "127.0.0.1" if host == "0.0.0.0" else host
    asked = urlencode({"name": name, "version": version, "path": "model.onnx"})
    address = f"http://{host}:{port}/model-versions/get-artifact?{asked}"
    request = urllib.request.Request(address, headers={"Host": f"localhost:{port}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return hashlib.sha256(answer.read()).hexdigest()
    except (OSError, http.client.HTTPException) as error:
        raise Trouble(f"{name} version {version}: MLflow does not give its file ({error!r})") from error


def _forget(is_answered: bool) -> None:
    """Delete what restores have kept."""
    check_started()
    _confirm(is_answered, "This deletes what was there before earlier restores: var/before-*, databases, artifacts.")
    with database.awake():
        for name in database.ask(f"SELECT datname FROM pg_database WHERE datname ~ '^{database.kept_name('')}';"):
            database.drop(name)
        if store := artifacts.store():
            artifacts.run(store, artifacts.FORGET)
    for folder in (ROOT / "var").glob("before-*"):
        shutil.rmtree(folder)
