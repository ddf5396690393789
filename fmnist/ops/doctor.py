"""What is wrong, and what to do about it: everything that a workspace or the platform depends on, looked at once."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import NamedTuple, TypeVar

from fmnist.errors import Failure, UserError, one_line
from fmnist.ops import containers, holdings, machine, secrecy, servers, stores
from fmnist.ops.containers import Container
from fmnist.ops.finding import Finding, complaint
from fmnist.ports import Port
from fmnist.registry import database_file
from fmnist.tracking.wiring import Destinations

PATIENCE = 8
"""Seconds for all of it; less where the command was slow to start."""
START = 1
"""Seconds that a start takes: with it, all is done within 10."""
CLOSED = 1  # a port where nothing answers: that of a container that does not run

Look = Callable[[], list[Finding]]
T = TypeVar("T")


@dataclass(frozen=True)
class Patient:
    """What is looked at: a workspace, with the platform of its checkout if there is one."""

    home: Path
    destinations: Destinations
    checkout: Path | None
    ports: dict[str, Port]
    """Of the embedded servers: by name."""
    data: Path
    may_fetch: bool = True
    """Whether data may be fetched that are not there."""
    is_tracked: bool = True
    key_file: Path | None = None
    """With the service's key."""


class Places(NamedTuple):
    """Where the servers are: the platform's own if it runs."""

    containers: list[Container]
    trouble: list[Finding]
    on_platform: bool
    mlflow: str
    tensorboard: int
    service: int


def examine(patient: Patient, spent: float = START) -> list[Finding]:
    """Look at everything, at the same time, because some of it may not answer. `spent`: seconds since the start."""
    patience = PATIENCE - min(max(spent - START, 0), PATIENCE / 2)
    until = time.monotonic() + patience
    engine = _started(lambda: [containers.engine()])
    places = _started(lambda: _places(patient, engine.result))
    looks = _looks(patient, engine.result, places.result)
    pending = {name: _started(look) for name, look in looks.items()}
    return [
        finding
        for name, future in pending.items()
        for finding in _found(name, future, until, patience, partial(_excuse, name, places))
    ]


def _excuse(name: str, places: "Future[Places]") -> str | None:
    """What to do where a look takes long, if that is no fault."""
    if name == "data":  # a large table takes longer
        return "fmnist data takes its time, and keeps what it has read"
    local = places.done() and not places.exception() and database_file(places.result().mlflow)
    if name == "database" and local and _is_loading():
        return "look again: MLflow takes long to load here"
    return None


def _is_loading() -> bool:
    """Whether MLflow's import has begun, which takes seconds, and that of its store is not over."""
    store = sys.modules.get("mlflow.store.tracking.sqlalchemy_store")
    return "mlflow" in sys.modules and not hasattr(store, "SqlAlchemyStore")


def _looks(patient: Patient, engine: Look, places: Callable[[], Places]) -> dict[str, Look]:
    """What is looked at, in the order in which it is told."""
    home, to = patient.home, patient.destinations
    return {
        "python": lambda: [machine.python()],
        "packages": lambda: _packages(patient.checkout),
        "disk": lambda: [machine.disk(home)],
        "memory": lambda: [machine.memory()],
        "gpu": lambda: [machine.gpu()],
        "clock": lambda: [machine.clock(home, places().mlflow)],
        "docker": engine,
        "secrets": lambda: [secrecy.secrets(home, patient.checkout, patient.key_file)],
        "leftovers": lambda: [holdings.leftovers(home)],
        "data": lambda: [holdings.data(patient.data, home, may_fetch=patient.may_fetch)],
        # The platform's trainings send theirs to an address of its own network.
        "records": lambda: [] if places().on_platform else [holdings.records(home, to, tracked=patient.is_tracked)],
        "backup": lambda: [holdings.backup(home, "make backup" if places().on_platform else "fmnist backup")],
        "database": lambda: [stores.database(places().mlflow, to.model_name)],
        "artifact store": lambda: [stores.artifacts(places().mlflow, to.artifacts)],
        "registry": lambda: [stores.registry(places().mlflow, to.model_name)],
        "TensorBoard": lambda: [servers.tensorboard(places().tensorboard, to.logs, needed=places().on_platform)],
        "service": lambda: [servers.service(places().service, needed=places().on_platform)],
        "platform": lambda: places().trouble + _healths(patient, places()),
        # Where MLflow is a server, `fmnist up` is not what is used: JupyterLab of the platform's notebook has its port.
        "ports": lambda: (
            []
            if places().on_platform or to.mlflow_uri.startswith("http")
            else [machine.port(port) for port in patient.ports.values()]
        ),
    }


def _healths(patient: Patient, places: Places) -> list[Finding]:
    if not places.containers or patient.checkout is None:
        return []
    found = [containers.health(container, patient.checkout) for container in places.containers]
    return found + (containers.missing(places.containers, patient.checkout) if places.on_platform else [])


def _packages(checkout: Path | None) -> list[Finding]:
    from fmnist.ops.packages import packages  # may be the one that is missing

    return [packages(checkout)]


def _places(patient: Patient, engine: Look) -> Places:
    found, trouble = [], []
    try:
        found = containers.list_containers(patient.checkout) if patient.checkout else []
    except (Failure, ValueError) as error:
        if engine()[0].state != "off":  # else its own finding says it
            trouble = [Finding("platform", "bad", one_line(error), "compare .env with .env.example")]
    if not any(container.state == "running" for container in found):
        own = patient.destinations.mlflow_uri, patient.ports["TensorBoard"].number, patient.ports["Service"].number
        return Places(found, trouble, False, *own)
    ports = {container.service: container.port or CLOSED for container in found}
    mlflow = f"http://127.0.0.1:{ports.get('mlflow', CLOSED)}"
    return Places(found, trouble, True, mlflow, ports.get("tensorboard", CLOSED), ports.get("api", CLOSED))


def _started(work: Callable[[], T]) -> "Future[T]":
    """In a thread that nobody waits for at the end: a mount or a server that hangs is no reason to stay."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def _found(
    name: str, look: "Future[list[Finding]]", until: float, patience: float, excuse: Callable[[], str | None]
) -> list[Finding]:
    wait([look], max(0.0, until - time.monotonic()))
    if not look.done() and (remedy := excuse()):
        return [Finding(name, "warning", f"not all read within {patience:.2g} s", remedy)]
    if not look.done():
        remedy = "look again; if it stays so, mend or restart it"
        return [Finding(name, "bad", f"no answer within {patience:.2g} s", remedy)]
    try:
        return look.result()
    except (OSError, ImportError, Failure, UserError) as error:
        return [complaint(name, "bad", error)]
