"""The platform's containers, as Docker Compose tells of them."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fmnist.errors import Failure, one_line
from fmnist.ops.finding import Finding

PATIENCE = 4
"""Seconds: where the servers are is known only after that."""
OLDEST_ENGINE, OLDEST_COMPOSE = (24, 0), (2, 20)


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
    if not (checkout / ".env").exists() or not has_docker():
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


def engine() -> Finding:
    """Docker's engine and its compose plugin."""
    if not has_docker():
        return Finding("docker", "off", "not installed; only the platform (make start) needs it")
    try:
        version = docker("version", "--format", "{{.Server.Version}}")
    except Failure as error:
        return Finding("docker", "off", f"no engine answers ({error})", "if you want the platform: start it")
    try:
        compose = docker("compose", "version", "--short")
    except Failure:
        return Finding("docker", "bad", f"engine {version}, no compose", "install Docker's compose plugin")
    told = f"engine {version}, compose {compose}"
    if _numbers(version) < OLDEST_ENGINE or _numbers(compose) < OLDEST_COMPOSE:
        return Finding("docker", "bad", told, "install engine 24.0 and compose 2.20, or newer")
    return Finding("docker", "ok", told)


def _numbers(text: str) -> tuple[int, ...]:
    digits = text.lstrip("v").replace("+", ".").replace("-", ".").split(".")[:2]
    return tuple(int(part) for part in digits if part.isdigit())


OLD_SCHEMA = "out-of-date database schema"
"""MLflow's own words, in its log."""


def health(container: Container, checkout: Path) -> Finding:
    what = f"container {container.service}"
    if container.health == "healthy":
        return Finding(what, "ok", "healthy")
    if container.service == "mlflow" and _has_old_schema(checkout):
        return Finding(what, "bad", "its database is of an older MLflow", "make upgrade (it makes a backup first)")
    if container.state != "running":
        remedy = f"make start; make logs ARGS={container.service} says why it ended"
        return Finding(what, "bad", container.state, remedy)
    return Finding(what, "bad", container.health or container.state, f"make logs ARGS={container.service} says why")


def missing(found: list[Container], checkout: Path) -> list[Finding]:
    """Of services that have no container. Raises Failure."""
    services = docker("compose", "config", "--services", folder=checkout).splitlines()
    there = {container.service for container in found}
    return [
        Finding(f"container {name}", "bad", "there is none", "make start") for name in services if name not in there
    ]


def _has_old_schema(checkout: Path) -> bool:
    try:
        return OLD_SCHEMA in docker("compose", "logs", "--no-color", "--tail", "40", "mlflow", folder=checkout)
    except Failure:
        return False
