"""The platform's containers, as Docker Compose tells of them."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fmnist.errors import Failure, one_line

PATIENCE = 6  # seconds


@dataclass(frozen=True)
class Container:
    service: str
    state: str
    """running, exited, …"""
    health: str
    """healthy, unhealthy, starting, or nothing where it does not run."""
    port: int | None
    """Where it is published on this machine."""


def has_docker() -> bool:
    return shutil.which("docker") is not None


def docker(*arguments: str, folder: Path | None = None) -> str:
    """What a command of Docker's prints. Raises Failure with what it complains of."""
    command = ["docker", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failure("docker", f"does not answer within {PATIENCE} s; restart its engine") from error
    if done.returncode:
        reason = one_line((done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1])
        raise Failure(f"docker {arguments[0]}", reason)
    return done.stdout.strip()


def list_containers(checkout: Path) -> list[Container]:
    """Those of the checkout's platform; none where it was never started. Raises Failure."""
    if not (checkout / ".env").exists():
        return []
    listed = docker("compose", "ps", "--all", "--format", "json", folder=checkout)
    # One object a line; before compose 2.21, one list.
    found = json.loads(listed) if listed.startswith("[") else [json.loads(line) for line in listed.splitlines()]
    return [_container(one) for one in found]


def _container(told: dict[str, object]) -> Container:
    publishers = told.get("Publishers") or []
    assert isinstance(publishers, list)
    ports = [publisher["PublishedPort"] for publisher in publishers if publisher.get("PublishedPort")]
    return Container(str(told["Service"]), str(told["State"]), str(told.get("Health") or ""), next(iter(ports), None))
