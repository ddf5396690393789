"""A workspace -> its service."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from fmnist.errors import UserError
from fmnist.ports import Port, check_ports, is_loopback, netloc
from fmnist.progress import print_notice
from fmnist.registry import database_file, names_version, split_address
from fmnist.serve.guard import Guard, read_key
from fmnist.serve.keeper import Keeper
from fmnist.serve.releases import FileSource, Source
from fmnist.serve.rest import RestSource
from fmnist.serve.server import serve
from fmnist.serve.service import Service
from fmnist.serve.sqlite import SqliteSource
from fmnist.settings import Settings
from fmnist.workspace import Workspace


def run_service(
    workspace: Workspace, model: str, host: str | None, port: int | None, ready: Callable[[str], None]
) -> None:
    """Serve `model` until a signal. `ready` is told the address. Raises UserError or Failure before it listens."""
    settings = workspace.settings
    host = host or settings.host
    host = "127.0.0.1" if host == "localhost" else host  # which may be two addresses
    number = port or settings.service_port
    service = make_service(workspace, model, host, number)
    check_ports(host, [Port("the service", number, Settings.variable("service_port"))])
    if not is_loopback(host) and not settings.api_key_file:
        print_notice(f"{host}: whoever reaches this address can ask; FMNIST_API_KEY_FILE asks them for a key")
    ready(f"http://{netloc(host, number)}")
    serve(service, host, number)


def make_service(workspace: Workspace, model: str, host: str, port: int) -> Service:
    """The service for `model`: champion (it follows it), a version, a run, models:/…, an .onnx file."""
    settings = workspace.settings
    source, kept = _source(workspace, model)
    cache = settings.home / "serving" / kept if kept else None
    missing = f"{settings.model_name} has no {model} yet; train one: fmnist train"
    return Service(
        Keeper(source, cache, settings.poll_seconds, missing),
        settings.model_name,
        Guard(_hosts(settings, host, port), read_key(settings.api_key_file) if settings.api_key_file else None),
        links=_links(workspace),
        log_share=settings.log_share,
    )


def _source(workspace: Workspace, model: str) -> tuple[Source, str]:
    """Where the model comes from, and under which name it is kept for a restart, if it is."""
    if not names_version(model):
        path = Path(model)
        if path.suffix == ".onnx" or path.is_file():
            if not path.is_file():
                raise UserError(path, "is not there; name an .onnx file")
            return FileSource(path), ""
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


def _hosts(settings: Settings, host: str, port: int) -> list[str] | None:
    """Names that requests may be sent to. Under which a network knows this machine, only its owner can say."""
    further = [name.strip() for name in settings.allowed_hosts.split(",") if name.strip()]
    if "*" in further or (not is_loopback(host) and not further):
        return None
    names = {"localhost", "127.0.0.1", "[::1]", netloc(host, port).rpartition(":")[0], *further}
    return [*names, *(f"{name}:{port}" for name in names)]


def _links(workspace: Workspace) -> dict[str, str]:
    """Where a browser finds them. A port that was given goes first: in a container MLflow's address is no browser's."""
    settings, uri = workspace.settings, workspace.destinations.mlflow_uri
    is_browsers = uri.startswith("http") and "@" not in uri and "mlflow_port" not in settings.model_fields_set
    mlflow = uri if is_browsers else f"http://localhost:{settings.mlflow_port}"
    return {"MLflow": mlflow, "TensorBoard": f"http://localhost:{settings.tensorboard_port}"}
