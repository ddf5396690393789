"""`make backup`: one consistent set of all that the platform has recorded, made while trainings go on.

What makes it consistent is the order: first how far each run's records were sent, then the database, then the rest. So
the database never knows of a file that the set lacks, and what was recorded meanwhile is sent again after a restore.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterator

import artifacts
import database
from engine import ROOT, Options, Trouble, docker, image_of, settings
from sets import (
    ARTIFACTS,
    DUMP,
    FOLDERS,
    TRACKED,
    Hashed,
    check_links,
    check_room,
    pack,
    show,
    sync,
    verified,
    weight,
    write_manifest,
)
from starting import check_started
from turns import check_nothing_cut_off

PLACE = ROOT / "var" / "backups"
DAY = 24 * 60 * 60  # seconds


def backup(arguments: list[str]) -> None:
    """Keep a set of all runs, models, records and notebooks; a training may go on meanwhile."""
    parser = Options(prog="make backup", usage='make backup ARGS="[--to DIR] [--secrets] | --verify SET"')
    parser.add_argument("--to", type=Path, default=PLACE)
    parser.add_argument("--secrets", action="store_true")
    parser.add_argument("--verify", type=Path)
    asked = parser.parse_args(arguments)
    if asked.verify:
        return show(asked.verify, verified(asked.verify))
    check_started()
    check_nothing_cut_off()
    made, manifest = back_up(asked.to, asked.secrets)
    show(made, manifest)
    if ARTIFACTS not in manifest["files"]:
        print(f"the models and pictures are in {artifacts.destination()}, not in the set: that has its own backup")
    print(f"put it back with: make restore FROM={made}")
    return None


def back_up(place: Path, with_secrets: bool = False) -> tuple[Path, dict[str, Any]]:
    """A set, verified, as a new folder in `place`, for its owner alone. Raises Trouble, and makes none."""
    now = datetime.now(timezone.utc)
    place.mkdir(parents=True, exist_ok=True)
    target = place / f"fmnist-{now:%Y%m%d-%H%M%S}"
    if target.exists():
        raise Trouble(f"{target}: is there already; wait a second")
    with database.awake(), _scratch(place, target.name) as folder:
        if not database.has_tables():
            raise Trouble("the platform: MLflow has recorded nothing here yet; make start")
        store = artifacts.store()
        _check_room(place, store)
        try:
            _write_set(folder, store, with_secrets, now)
            manifest = verified(folder)
            folder.rename(target)
            sync(place)
        except OSError as error:
            told = f"takes no backup ({error.filename or ''} {error.strerror})"
            raise Trouble(f"{place}: {told}; make room or choose another place with --to") from error
    return target, manifest


@contextlib.contextmanager
def _scratch(place: Path, name: str) -> Iterator[Path]:
    """A folder for its owner alone, and files in it too; what is still there at the end goes."""
    for left in place.glob(".scratch-*"):
        if time.time() - left.stat().st_mtime > DAY:  # its process was killed
            shutil.rmtree(left, ignore_errors=True)
    folder, before = place / f".scratch-{name}", os.umask(0o077)
    try:
        folder.mkdir()
        yield folder
    finally:
        os.umask(before)
        shutil.rmtree(folder, ignore_errors=True)


def _check_room(place: Path, store: artifacts.Store | None) -> None:
    needed = database.size() + sum(weight(folder) for folder in FOLDERS.values())
    needed += artifacts.weigh(store)[0] if store else 0
    check_room(str(place), shutil.disk_usage(place).free, needed)


def _write_set(folder: Path, store: artifacts.Store | None, with_secrets: bool, now: datetime) -> None:
    files = {}
    sent = {path: path.read_bytes() for name in TRACKED for path in FOLDERS[name].glob("*/shipping.json")}

    def as_sent(path: Path) -> bytes | None:
        return sent.get(path, b"{}" if path.name == "shipping.json" else None)  # begun since: nothing of it was

    with database.moment() as (name, counts, schema), (folder / DUMP).open("wb") as file:
        out = Hashed(file)
        database.dump(name, out.write)
        files[DUMP] = out.finish()
    database.check_dump(folder / DUMP)
    if store:
        with (folder / ARTIFACTS).open("wb") as file:
            out = Hashed(file)
            artifacts.pack(store, out)
            files[ARTIFACTS] = out.finish()
    roots = {**FOLDERS, **({"secrets": ROOT / "secrets"} if with_secrets else {})}
    for name, root in roots.items():
        if name != "notebooks":  # there, links to data are usual
            check_links(root)
        files[f"{name}.tar"] = pack(root, folder / f"{name}.tar", as_sent if name in TRACKED else None)
    with (folder / "settings.env").open("wb") as file:
        out = Hashed(file)
        out.write((ROOT / ".env").read_bytes())
        files["settings.env"] = out.finish()
    counts["folders of runs"] = len(list(FOLDERS["runs"].glob("*/config.json")))
    about = {
        "artifacts": artifacts.destination(),
        "database_bytes": database.size(),
        "mlflow_port": settings().get("FMNIST_MLFLOW_PORT") or "5000",
        "schema": schema,
    }
    head = {"made": now.isoformat(timespec="seconds"), "home": str(ROOT / "var"), "versions": _versions()}
    write_manifest(folder, {**head, "counts": counts, "files": files, "platform": about})


def _versions() -> dict[str, str]:
    (ours,) = re.findall(r'__version__ = "(.*)"', (ROOT / "fmnist" / "__init__.py").read_text(encoding="utf-8"))
    return {
        "fmnist": ours,
        "mlflow": mlflow_version(image_of("mlflow")),
        "postgres": database.ask("SHOW server_version;")[0],
    }


def mlflow_version(image: str) -> str:
    """Of the MLflow in an image."""
    script = "from importlib.metadata import version; print(version('mlflow'))"
    command = ("run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", script)
    return docker(*command, capture_output=True).stdout.strip()
