"""The platform's verbs: what `make build`, `start`, `status`, `reset` and `wheels` do besides asking Docker Compose.

They need Docker and the system's Python, 3.8 or newer, and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
from pathlib import Path

from engine import ROOT, Trouble, any_profile, check_engine, compose, containers, docker, has_profile
from keeping import backup
from restoring import check_untrained, restore
from starting import GENERATED, bring_up, check_started, prepare, show_pages
from turns import alone, check_nothing_cut_off, give_up
from upgrading import upgrade

PACKAGED = ("constraints.txt", "pyproject.toml", "LICENSE", "README.md", "fmnist/__init__.py", "platform")
"""What pip needs to see of the checkout to fetch what it requires: no secrets, no data."""


def build(arguments: list[str]) -> None:
    """Build the images."""
    check_engine()
    prepare()
    compose("build", *arguments)


def start(arguments: list[str]) -> None:
    """Start everything, wait until all is healthy, and say where it is."""
    check_engine()
    check_nothing_cut_off()
    bring_up(arguments)


def status(arguments: list[str]) -> None:
    """What runs, how it is, and where it is to be found."""
    check_started()
    listed = containers()
    for container in listed:
        print(f"  {container['Service']:12} {container['Status']}")
    if any(container["State"] == "running" for container in listed):
        show_pages()
    else:
        print(("\n" if listed else "") + "it does not run; make start")


def stop(arguments: list[str]) -> None:
    """Stop everything; nothing is lost."""
    check_started()
    compose(*any_profile(), "stop", *arguments)


def logs(arguments: list[str]) -> None:
    """What the services say, and go on saying."""
    check_started()
    compose("logs", "--tail", "100", *(arguments or ["--follow"]), check=False)


def train(arguments: list[str]) -> None:
    """`fmnist train` in the notebook's container: its own exit code."""
    check_started()
    running = {container["Service"] for container in containers() if container["State"] == "running"}
    if "notebook" not in running:
        raise Trouble("the platform: does not run; make start")
    if any(word.partition("=")[0] == "--workers" for word in arguments) and "ray-head" not in running:
        raise Trouble("the cluster: does not run; COMPOSE_PROFILES=cluster in .env, make build, make start")
    terminal = [] if sys.stdin.isatty() and sys.stdout.isatty() else ["--no-TTY"]
    sys.exit(compose("exec", *terminal, "notebook", "fmnist", "train", *arguments, check=False).returncode)


def wheels(arguments: list[str]) -> None:
    """Fetch what the images' Dockerfiles install, as the images' own Python wants it."""
    check_engine()
    folder, marks = ROOT / "platform" / "wheels", {"constraints.txt": True, "cluster.txt": has_profile("cluster")}
    for mark in marks:
        (folder / mark).unlink(missing_ok=True)
    given = [name for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS") if os.environ.get(name)]
    options = ["--user", f"{os.getuid()}:{os.getgid()}", "--env", "HOME=/tmp"]
    options += [option for name in given for option in ("--env", name)]
    if Path(local := os.environ.get("PIP_FIND_LINKS") or "none").is_dir():
        options += ["--volume", f"{Path(local).resolve()}:{local}:ro"]
    for part in PACKAGED:
        options += ["--volume", f"{ROOT / part}:/checkout/{part}:ro"]
    options += ["--volume", f"{folder}:/wheels"]
    needs = ["/checkout[notebook]", "/checkout[serve]", *_build_needs()]
    needs += ["/checkout[cluster]"] if marks["cluster.txt"] else []
    for file in sorted((ROOT / "platform").glob("*/requirements.txt")):
        needs += ["--requirement", f"/checkout/platform/{file.parent.name}/requirements.txt"]
    command = ["python", "-m", "pip", "download", "--dest", "/wheels", "--constraint", "/checkout/constraints.txt"]
    docker("run", "--rm", *options, "python:3.11-slim-bookworm", *command, *needs, *arguments)
    for mark in filter(marks.get, marks):  # it is complete for these: install.sh compares
        shutil.copy(ROOT / "constraints.txt", folder / mark)


def _build_needs() -> list[str]:
    """What pip builds an editable package with: by pyproject.toml, and by hatchling when it runs."""
    described = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^requires = \[(.*)\]$", described, re.MULTILINE)
    return [*re.findall('"(.*?)"', listed), "editables"]


def reset(arguments: list[str]) -> None:
    """Delete database, artifacts and generated secrets, after asking."""
    check_started()
    print(
        "This deletes all that MLflow knows of runs, all models and artifacts it keeps on this machine, and passwords"
    )
    print("and token. The runs' own folders and TensorBoard's logs (var/), notebooks/, data/, .env and your own keys")
    print("(secrets/s3_credentials, secrets/api_key) stay.")
    if arguments != ["--yes"] and (not sys.stdin.isatty() or input("Type yes to delete: ").strip() != "yes"):
        raise Trouble("nothing was deleted; that takes a yes at the terminal, or make reset ARGS=--yes")
    check_untrained()
    compose(*any_profile(), "down", "--volumes", "--remove-orphans")
    give_up()
    for name in GENERATED:
        (ROOT / "secrets" / name).unlink(missing_ok=True)


VERBS = {
    verb.__name__: verb for verb in (build, start, stop, status, logs, reset, train, wheels, backup, restore, upgrade)
}
ALONE = ("start", "backup", "restore", "upgrade", "reset")
"""Not two of them at a time, but for starts. A backup, too, stops Postgres at its end where it had to wake it."""


def _interrupt(number: int, frame: object) -> None:
    """As Ctrl-C does: what is undone then would stay half done otherwise."""
    for other in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    if number == signal.SIGHUP:  # the terminal is gone: what is said from here on is for a file
        said = os.open(ROOT / "var" / "turn.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (1, 2):
            os.dup2(said, stream)
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    chosen, rest = parser.parse_known_args()
    try:
        for number in (signal.SIGTERM, signal.SIGHUP) if chosen.verb in ALONE else ():
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, _interrupt)
        harmless = chosen.verb == "start" or any(word.startswith("--verify") for word in rest)
        with alone(shared=harmless) if chosen.verb in ALONE else contextlib.nullcontext():
            VERBS[chosen.verb](rest)
    except Trouble as trouble:
        print(f"platform: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"platform: {error.filename}: {error.strerror}; mend that, and try again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
