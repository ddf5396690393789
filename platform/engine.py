"""Docker and Docker Compose, asked for this checkout's platform, and what .env says."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterable, NoReturn

ROOT = Path(__file__).resolve().parent.parent
OLDEST_ENGINE, OLDEST_COMPOSE = (24, 0), (2, 20)
SETTING = re.compile(r"""\s*(?:export\s+)?(\w+)\s*=(?:\s*'([^']*)'|\s*"([^"]*)"|(.*?))\s*(?:\s\#.*)?$""")
"""A line of .env: name and value, in quotes or not; a comment may follow."""


class Trouble(Exception):
    """What ends a verb: one line."""


class Options(argparse.ArgumentParser):
    """What a verb takes; anything else is a Trouble."""

    def error(self, message: str) -> NoReturn:
        raise Trouble(f"{self.prog}: {message}; {self.format_usage().strip()}")


def docker(*arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(["docker", *arguments], cwd=ROOT, text=True, **options)
    except FileNotFoundError as error:
        raise Trouble("docker: is not installed; install Docker 24 or newer, with compose 2.20 or newer") from error
    if check and done.returncode:
        said = [line for line in (done.stderr or "").strip().splitlines() if line]
        raise Trouble(said[-1] if said else f"docker {' '.join(arguments[:2])}: ended with {done.returncode}")
    return done


def stream(write: Callable[[bytes], Any], *arguments: str, accepted: Iterable[int] = (0,)) -> None:
    """Hand on what a command of Docker's prints, as it comes. Raises Trouble unless it ends with what is accepted."""
    with tempfile.TemporaryFile() as said:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": said}
        process = subprocess.Popen(["docker", *arguments], cwd=ROOT, **pipes)
        try:
            for piece in iter(lambda: process.stdout.read(1 << 20), b""):
                write(piece)
        except BaseException:
            process.terminate()
            raise
        finally:
            code = process.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    if code not in accepted:
        told = next((line for line in lines if "error:" in line), lines[-1] if lines else "")
        raise Trouble(told or f"docker {' '.join(arguments[:2])}: ended with {code}")


def one_off(service: str, *command: str) -> list[str]:
    """Arguments of compose that run a command in a container as the service's is, which is gone afterwards."""
    return ["run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", command[0], service, *command[1:]]


def compose(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return docker("compose", *arguments, **options)


def check_engine() -> None:
    """Raise Trouble unless there is an engine, and a compose, that can run the platform."""
    shown = docker("version", "--format", "{{.Server.Version}}", check=False, capture_output=True)
    if shown.returncode:
        reason = (shown.stderr.strip().splitlines() or ["no answer"])[0]
        raise Trouble(f"docker: its engine does not answer ({reason}); start it, or get the right to use it")
    _check_age("docker: its engine", shown.stdout.strip(), OLDEST_ENGINE)
    found = docker("compose", "version", "--short", check=False, capture_output=True)
    if found.returncode:
        raise Trouble("docker: has no compose; install its compose plugin, 2.20 or newer")
    _check_age("docker compose", found.stdout.strip(), OLDEST_COMPOSE)


def _check_age(what: str, version: str, oldest: tuple[int, int]) -> None:
    digits = version.lstrip("v").replace("-", ".").replace("+", ".").split(".")[:2]
    if all(part.isdigit() for part in digits) and tuple(map(int, digits)) < oldest:
        raise Trouble(f"{what} {version}: is too old; install {oldest[0]}.{oldest[1]} or newer")


def check_ours() -> None:
    """Raise Trouble where the platform of this name is another checkout's."""
    label = "com.docker.compose.project"
    asked = ("--filter", f"label={label}={project()}", "--format", f'{{{{.Label "{label}.working_dir"}}}}')
    for other in sorted(set(docker("ps", "--all", *asked, capture_output=True).stdout.splitlines()) - {""}):
        try:
            is_ours = Path(other).samefile(ROOT)
        except (FileNotFoundError, NotADirectoryError):  # this one was moved, or it is gone
            continue
        except OSError:  # somebody else's, who lets nobody look
            is_ours = False
        if not is_ours:
            own = "PLATFORM_NAME, NOTEBOOK_CONTAINER and ports of its own in .env"
            raise Trouble(f"the platform {project()}: is that of {other}; give this checkout {own}")


def settings() -> dict[str, str]:
    """As compose sees them: .env, if there is one yet, and the environment over it."""
    found, file = {}, ROOT / ".env"
    for line in file.read_text().splitlines() if file.exists() else ():
        if given := SETTING.match(line):
            name, *values = given.groups()
            found[name] = next(value for value in values if value is not None).strip()
    return {**found, **os.environ}


def profiles() -> list[str]:
    return [name.strip() for name in (settings().get("COMPOSE_PROFILES") or "").split(",") if name.strip()]


def has_profile(name: str) -> bool:
    return bool({name, "*"} & set(profiles()))


def any_profile() -> list[str]:
    """Compose's options for all that there may be: the platform's own, though .env names them no more, and a user's."""
    return [option for name in ("s3", "cluster", *profiles()) for option in ("--profile", name)]


def project() -> str:
    return settings().get("PLATFORM_NAME") or "fmnist"


def image_of(service: str) -> str:
    """The id of the image that the service's container was made of; of the one that the next would be, without any."""
    made = [container["ID"] for container in containers() if container["Service"] == service]
    told = docker("inspect", "--format", "{{.Image}}", *made[:1], capture_output=True) if made else None
    if told is None and (told := _image(service)).returncode:
        compose("build", service)
        told = _image(service)
    return told.stdout.strip()


def _image(service: str) -> subprocess.CompletedProcess[str]:
    return docker("image", "inspect", "--format", "{{.Id}}", f"{project()}/{service}", check=False, capture_output=True)


def containers() -> list[dict[str, Any]]:
    """Those of the platform, also stopped ones, as compose lists them."""
    listed = compose("ps", "--all", "--format", "json", capture_output=True).stdout.strip()
    if listed.startswith("["):  # before compose 2.21
        return list(json.loads(listed))
    return [json.loads(line) for line in listed.splitlines()]
