"""MLflow's files: on a volume of the platform's, seen by containers of their own; or in a bucket of somebody else's.

What is to take their place, and what they took the place of, lies beside them in the same volume: so it is a matter of
renames. MLflow's user may not look into the latter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from engine import Trouble, compose, containers, docker, has_profile, one_off, settings, stream
from sets import Hashed

DEFAULT = "/artifacts"


class Store(NamedTuple):
    """A volume of the platform's."""

    service: str
    """Whose container has it."""
    folder: str
    """Where it is in there."""


def destination() -> str:
    return settings().get("ARTIFACTS_DESTINATION") or DEFAULT


def store() -> Store | None:
    """None where they are in a bucket of somebody else's."""
    if destination().startswith(("/", "file:")):
        return Store("mlflow", DEFAULT)
    return Store("s3", "/data") if _is_own_server() else None


def _is_own_server() -> bool:
    return urlsplit(settings().get("S3_ENDPOINT_URL") or "").hostname == "s3"


def check_place() -> None:
    """Raise Trouble where nothing would answer there; say so where it is another place than before."""
    if not destination().startswith(("/", "file:")) and _is_own_server() and not has_profile("s3"):
        given = f"COMPOSE_PROFILES {settings().get('COMPOSE_PROFILES') or ''!r}"
        raise Trouble(
            f"{given}: lacks s3, the server that S3_ENDPOINT_URL names; with both: COMPOSE_PROFILES=s3,cluster"
        )
    made = [container["ID"] for container in containers() if container["Service"] == "mlflow"]
    shown = (
        docker("inspect", "--format", "{{json .Config.Env}}", *made[:1], capture_output=True).stdout if made else "[]"
    )
    before = dict(line.partition("=")[::2] for line in json.loads(shown)).get("MLFLOW_ARTIFACTS_DESTINATION")
    if before and before != destination():
        print(f"ARTIFACTS_DESTINATION: was {before}, is {destination()}: until what was kept there is copied it is")
        print("neither found nor backed up (docs/platform.md, Artifacts elsewhere)")


OWN = "! -name '.before-*' ! -name .next ! -name .placing"
FUNCTIONS = f"""set -eu; cd "$0"
into() {{ find "$1" -mindepth 1 -maxdepth 1 {OWN} -exec mv -t "$2" -- {{}} +; }}
"""
FORWARD = """kept=.before-$1; mkdir -p $kept; chmod 700 $kept
if [ -d .next ]; then into . $kept; mv .next .placing; fi
if [ -d .placing ]; then into .placing .; rmdir .placing; fi
chmod 0 $kept; sync -f .
"""
BACK = """kept=.before-$1; [ -d $kept ] || exit 0
chmod 700 $kept
if [ ! -d .next ]; then mkdir -p .placing; into . .placing; mv .placing .next; fi
into $kept .; rmdir $kept; sync -f .
"""
WEIGH = "du --summarize --bytes --exclude './.before-*' . && df --block-size=1 --output=avail ."
DISCARD = "rm -rf .next"
KEEP = "if [ -d .next ]; then mv .next .before-$1; chmod 0 .before-$1; fi"
FORGET = """for old in $(find . -maxdepth 1 -name '.before-*'); do chmod 700 "$old"; rm -rf "$old"; done"""
UNPACK = "rm -rf .next; mkdir .next; tar --extract --directory .next; sync -f ."


def run(place: Store, script: str, *arguments: str, content: Path | None = None) -> str:
    """What it prints. Raises Trouble."""
    command = one_off(place.service, "sh", "-c", FUNCTIONS + script, place.folder, *arguments)
    with (content or Path("/dev/null")).open("rb") as given:
        done = compose(*command, stdin=given, check=False, capture_output=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise Trouble(f"artifacts: {lines[-1].strip()}; see whether their volume is in order")
    return done.stdout


def weigh(place: Store) -> tuple[int, int]:
    """Bytes: (what they are, what is free beside them)."""
    told = run(place, WEIGH).split()
    return int(told[0]), int(told[-1])


def pack(place: Store, out: Hashed) -> None:
    """All of them as a tar file; a file that is being written may be in it as it was at some moment."""
    left_out = [f"--exclude=./{name}" for name in (".before-*", ".next", ".placing")]
    command = one_off(place.service, "tar", "--create", "--directory", place.folder, *left_out, ".")
    stream(out.write, "compose", *command, accepted=(0, 1))  # 1: a file has changed, or gone, meanwhile
