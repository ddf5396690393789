"""A workspace -> its service: one in this process, or the same in replicas."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from socket import gethostname
from urllib.parse import quote

from fmnist.cluster.serving import Front, Replicas, serve_replicas
from fmnist.errors import UserError
from fmnist.ports import Port, check_ports, is_loopback, known_names, netloc, with_port
from fmnist.progress import print_notice
from fmnist.registry import database_file, names_version, split_address
from fmnist.run import checked
from fmnist.serve.guard import Guard, read_key
from fmnist.serve.keeper import Keeper
from fmnist.serve.limits import Limits
from fmnist.serve.logs import log_as_json
from fmnist.serve.releases import FileSource, SentSource, Source
from fmnist.serve.rest import RestSource
from fmnist.serve.server import IDLE_SECONDS, serve
from fmnist.serve.service import Service
from fmnist.serve.sqlite import SqliteSource
from fmnist.settings import Settings
from fmnist.workspace import Workspace


@dataclass(frozen=True)
class Plan:
    """What a service is made of, here or on another machine, once or more often."""

    source: Source
    cache: Path | None
    """A folder in which the model outlasts a restart."""
    interval: float
    """Seconds between two looks for a new model."""
    missing: str
    """What to say where there is no model."""
    model_name: str
    guard: Guard
    links: Mapping[str, str]
    log_share: float

    def make(self) -> Service:
        keeper = Keeper(self.source, self.cache, self.interval, self.missing)
        return Service(keeper, self.model_name, self.guard, links=self.links, log_share=self.log_share)

    def make_replica(self, number: int) -> Service:
        """The one with this number on its machine: what it keeps there is its own."""
        log_as_json(host=gethostname())
        own = self.cache and self.cache.with_name(f"{self.cache.name}-{number}")
        return replace(self, cache=own).make()


def run_service(
    workspace: Workspace,
    model: str,
    host: str | None,
    port: int | None,
    ready: Callable[[str], None],
    replicas: Replicas | None = None,
    address: str | None = None,
) -> None:
    """Serve `model` until a signal. `ready` is told where. Raises UserError or Failure before it listens.

    `replicas`: so many, on the Ray cluster at `address` (without one RAY_ADDRESS's, or one of this machine's own).
    """
    settings = workspace.settings
    host = host or settings.host
    host = "127.0.0.1" if host == "localhost" else host  # which may be two addresses
    number = port or settings.service_port
    plan = make_plan(workspace, model, host, number)
    address = address or os.environ.get("RAY_ADDRESS")
    if replicas is None or not address:
        check_ports(host, [Port("the service", number, "--port" if port else Settings.variable("service_port"))])
    if not is_loopback(host) and not settings.api_key_file:
        print_notice(f"{host}: whoever reaches this address can ask; FMNIST_API_KEY_FILE asks them for a key")
    where = f"http://{netloc(host, number)}"
    if replicas is None:
        ready(where)
        serve(plan.make(), host, number)
    else:
        limits = Limits()
        front = Front(host, number, IDLE_SECONDS, 2 * limits.requests, limits.drain)  # it refuses by itself before
        plan = replace(plan, source=_portable(plan.source)) if address else plan
        spread = f"listens on {host}, port {number}, of Ray's head and of each machine with a replica; Ctrl-C ends it"
        told = partial(print_notice, spread) if address else partial(ready, where)
        serve_replicas(plan.make_replica, replicas, front, address, told, print_notice)


def make_service(workspace: Workspace, model: str, host: str, port: int) -> Service:
    """The service for `model`: champion (it follows it), a version, a run, models:/…, an .onnx file."""
    return make_plan(workspace, model, host, port).make()


def make_plan(workspace: Workspace, model: str, host: str, port: int) -> Plan:
    """What the service for `model` is made of. Raises UserError."""
    settings = workspace.settings
    source, kept = _source(workspace, model)
    name, wanted = split_address(model, settings.model_name)
    names = known_names(host, settings.allowed_hosts)
    key = read_key(settings.api_key_file) if settings.api_key_file else None
    remedy = "train one: fmnist train" if name == settings.model_name else "register it, or name another: --model"
    return Plan(
        source=source,
        cache=settings.home / "serving" / kept if kept else None,
        interval=settings.poll_seconds,
        missing=f"{name} has no {wanted} yet; {remedy}",
        model_name=name,
        guard=Guard(names and with_port(names, port), key),
        links=_links(workspace),
        log_share=settings.log_share,
    )


def _portable(source: Source) -> Source:
    """One that works on other machines too. Raises UserError."""
    if isinstance(source, FileSource):
        return SentSource(source)
    if isinstance(source, SqliteSource):
        raise UserError("MLFLOW_TRACKING_URI", "is a database of this machine; give the address of an MLflow server")
    return source


def _source(workspace: Workspace, model: str) -> tuple[Source, str]:
    """Where the model comes from, and under which name it is kept for a restart, if it is."""
    if not names_version(model):
        path = Path(model)
        if path.suffix == ".onnx" or path.is_file():
            if not path.is_file():
                raise UserError(path, "is not there; name an .onnx file")
            return FileSource(checked(path)), ""
        run = workspace.find_run(model, finished=True)
        return FileSource(run.verified_model(), run.id), ""
    name, wanted = split_address(model, workspace.settings.model_name)
    if not name or not wanted:
        raise UserError(f"model {model!r}", "names no version; give models:/NAME@ALIAS or models:/NAME/NUMBER")
    uri = workspace.destinations.mlflow_uri
    kept = quote(f"{name}@{wanted}", safe="@")
    if database := database_file(uri):
        return SqliteSource(database, name, wanted), kept
    if uri.startswith(("http://", "https://")):
        return RestSource(uri, name, wanted), kept
    raise UserError("MLFLOW_TRACKING_URI", "is neither an http address nor a sqlite database; give one of these")


def _links(workspace: Workspace) -> dict[str, str]:
    """Where a browser finds them. A port that was given goes first: in a container MLflow's address is no browser's."""
    settings, uri = workspace.settings, workspace.destinations.mlflow_uri
    is_browsers = uri.startswith("http") and "@" not in uri and "mlflow_port" not in settings.model_fields_set
    mlflow = uri if is_browsers else f"http://localhost:{settings.mlflow_port}"
    return {"MLflow": mlflow, "TensorBoard": f"http://localhost:{settings.tensorboard_port}"}
