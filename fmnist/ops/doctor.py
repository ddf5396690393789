"""What is wrong, and what to do about it: everything that a workspace or the platform depends on, looked at once."""

import http.client
import json
import shutil
import socket
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from fmnist.errors import Failure, UserError, one_line
from fmnist.ops.containers import Container, docker, has_docker, list_containers
from fmnist.ops.remote import PATIENCE, ask, local_trial, remote_trial
from fmnist.ports import port_holder
from fmnist.registry import Registry
from fmnist.tracking.wiring import Destinations

GIGABYTE = 1024**3
LEAST_DISK, LEAST_MEMORY = 2 * GIGABYTE, GIGABYTE
OLDEST_ENGINE, OLDEST_COMPOSE = (24, 0), (2, 20)
CLOSED = 1  # a port where nothing answers: that of a container that does not run

State = Literal["ok", "off", "warning", "bad"]
"""`off`: not there, and not missed."""


class Finding(NamedTuple):
    what: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Patient:
    """What is looked at: a workspace, with the platform of its checkout if there is one."""

    home: Path
    destinations: Destinations
    checkout: Path | None
    ports: dict[str, int]
    """Of the embedded servers: by name."""


def examine(patient: Patient) -> list[Finding]:
    """Look at everything, at the same time, because some of it may not answer."""
    containers, trouble = _platform(patient.checkout)
    on_platform = any(container.state == "running" for container in containers)
    ports = {container.service: container.port for container in containers if container.port}
    mlflow = f"http://127.0.0.1:{ports.get('mlflow', CLOSED)}" if on_platform else patient.destinations.mlflow_uri
    tensorboard = ports.get("tensorboard", CLOSED) if on_platform else patient.ports["TensorBoard"]
    service = ports.get("api", CLOSED) if on_platform else patient.ports["Service"]
    looks: list[Callable[[], Finding]] = [
        lambda: _disk(patient.home),
        _memory,
        _engine,
        lambda: _database(mlflow, patient.destinations.model_name),
        lambda: _artifacts(mlflow, patient.destinations.artifacts),
        lambda: _tensorboard(tensorboard, patient.destinations.logs, needed=on_platform),
        lambda: _service(service, needed=on_platform),
    ]
    with ThreadPoolExecutor(len(looks)) as pool:
        found = [pending.result() for pending in [pool.submit(look) for look in looks]]
    if trouble:
        found.append(trouble)
    found += [_health(container) for container in containers]
    return found if on_platform else found + [_port(name, port) for name, port in patient.ports.items()]


def is_well(findings: Sequence[Finding]) -> bool:
    return all(finding.state != "bad" for finding in findings)


def _disk(home: Path) -> Finding:
    place = next(folder for folder in (home.resolve(), *home.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    told = f"{free / GIGABYTE:.1f} GB free at {place}"
    if free < LEAST_DISK:
        return Finding("disk", "bad", told, "make room: a training and its records may need 2 GB")
    return Finding("disk", "ok", told)


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    told = f"{free / GIGABYTE:.1f} GB available"
    if free < LEAST_MEMORY:
        return Finding("memory", "warning", told, "a training needs 1 GB: end what else runs")
    return Finding("memory", "ok", told)


def _engine() -> Finding:
    if not has_docker():
        return Finding("docker", "off", "not installed; only the platform (make start) needs it")
    try:
        engine = docker("version", "--format", "{{.Server.Version}}")
    except Failure as error:
        return Finding("docker", "off", f"no engine answers ({error})", "if you want the platform: start it")
    try:
        compose = docker("compose", "version", "--short")
    except Failure:
        return Finding("docker", "bad", f"engine {engine}, no compose", "install Docker's compose plugin")
    told = f"engine {engine}, compose {compose}"
    if _version(engine) < OLDEST_ENGINE or _version(compose) < OLDEST_COMPOSE:
        return Finding("docker", "bad", told, "install engine 24.0 and compose 2.20, or newer")
    return Finding("docker", "ok", told)


def _version(text: str) -> tuple[int, ...]:
    digits = text.lstrip("v").replace("+", ".").replace("-", ".").split(".")[:2]
    return tuple(int(part) for part in digits if part.isdigit())


def _platform(checkout: Path | None) -> tuple[list[Container], Finding | None]:
    if checkout is None or not has_docker():
        return [], None
    try:
        return list_containers(checkout), None
    except Failure as error:
        with suppress(Failure):
            docker("version")
            return [], Finding("platform", "bad", str(error), "compare .env with .env.example")
        return [], None  # the engine's own finding says it


def _health(container: Container) -> Finding:
    what = f"container {container.service}"
    if container.health == "healthy":
        return Finding(what, "ok", "healthy")
    if container.state != "running":
        return Finding(
            what, "bad", container.state, f"make start; make logs ARGS={container.service} says why it ended"
        )
    return Finding(what, "bad", container.health or container.state, f"make logs ARGS={container.service} says why")


def _database(uri: str, model_name: str) -> Finding:
    registry = Registry(uri, model_name)
    try:
        if registry.is_empty_place:
            return Finding("database", "ok", f"{one_line(uri)}: not made yet, the first training makes it")
        registry.probe()
        if uri.startswith("http"):  # its health says nothing of the database behind it
            status, _ = ask("GET", uri, "/api/2.0/mlflow/experiments/get?experiment_id=0")
            if status != http.client.OK:
                raise Failure(uri, f"answers a question about runs with {status}")
        else:
            registry.versions()
    except (Failure, UserError, OSError) as error:
        return Finding("database", "bad", one_line(error), "start MLflow, or mend its database; its log says more")
    return Finding("database", "ok", one_line(uri))


def _artifacts(uri: str, folder: Path) -> Finding:
    """Written, read back, deleted: a few bytes."""
    name, content = f"doctor-{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
    if not uri.startswith("http"):
        place, trial = str(folder), local_trial(folder / name)
    else:
        place, trial = f"through {one_line(uri)}", remote_trial(uri, f"/api/2.0/mlflow-artifacts/artifacts/{name}")
    try:
        back = trial(content)
    except (OSError, Failure, http.client.HTTPException) as error:
        return Finding("artifact store", "bad", f"{place}: {one_line(error)}", "make room, or mend where it writes")
    if back != content:
        return Finding(
            "artifact store", "bad", f"{place}: gave back other bytes than it got", "mend its disk or bucket"
        )
    return Finding("artifact store", "ok", f"{place}: written, read back, deleted")


def _tensorboard(port: int, logs: Path, *, needed: bool) -> Finding:
    there = {folder.name for folder in logs.glob("*") if any(folder.glob("events.*"))}
    try:
        status, answer = ask("GET", f"http://127.0.0.1:{port}", "/data/runs")
        shown = set(json.loads(answer)) if status == http.client.OK else set()
    except (OSError, ValueError, http.client.HTTPException):
        if needed:
            return Finding("TensorBoard", "bad", "does not answer", "make logs ARGS=tensorboard")
        return Finding("TensorBoard", "off", f"does not run; {len(there)} runs in {logs}")
    if missing := there - shown:
        return Finding(
            "TensorBoard",
            "bad",
            f"shows {len(shown)} runs, {len(missing)} in {logs} are missing",
            "reload it in a minute",
        )
    return Finding("TensorBoard", "ok", f"shows the {len(there)} runs in {logs}")


def _service(port: int, *, needed: bool) -> Finding:
    """What answers, and what it complains of: it goes on, so that is no more than a warning."""
    status, about = 0, None
    with suppress(OSError, ValueError, http.client.HTTPException):
        status, answer = ask("GET", f"http://127.0.0.1:{port}", "/status")
        about = json.loads(answer)
    if status == http.client.UNAUTHORIZED:
        return Finding("service", "ok", "answers, to those who have its key")
    if not isinstance(about, dict) or "registry_trouble" not in about:  # somebody else's port, maybe
        if needed:
            return Finding("service", "bad", "does not answer", "make logs ARGS=api")
        return Finding("service", "off", "does not run")
    model, trouble, refusal = about.get("model"), about["registry_trouble"], about.get("refusal")
    found = f"version {model['version']} answers" if model else "answers; it has no model yet"
    if trouble:
        return Finding("service", "warning", f"{found}; {one_line(trouble)}", "it goes on, and asks again by itself")
    if refusal:
        return Finding("service", "warning", f"{found}; {one_line(refusal['reason'])}", "fmnist promote another one")
    return Finding("service", "ok" if model else "off", found)


def _port(name: str, port: int) -> Finding:
    """Whether `fmnist up` can have it, or has it."""
    with socket.socket() as probe:
        probe.settimeout(PATIENCE)
        if probe.connect_ex(("127.0.0.1", port)):
            return Finding(f"port {port}, {name}", "ok", "free")
    return Finding(f"port {port}, {name}", "ok", f"held by {port_holder(port)}")
