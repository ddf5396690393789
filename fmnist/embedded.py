"""`fmnist up`: MLflow, TensorBoard, JupyterLab and the service as processes of this machine, until Ctrl-C.

Nothing is started before every port is known to be free. Trainings write to the database that this MLflow serves,
at the same time and without it: they need no server. The service reads it too.
"""

import http.client
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fmnist.errors import Failure, one_line
from fmnist.files import make_folder, write_whole
from fmnist.ports import Port, check_ports, is_loopback, known_names, named, netloc, own_names, reached, with_port
from fmnist.registry import Registry
from fmnist.settings import Settings, checkout_root
from fmnist.supervisor import Logs, Supervisor
from fmnist.tracking.wiring import Destinations

READY_SECONDS = 180
LOOPBACK = ("localhost", "127.0.0.1")
MAKE_DATABASE = "import sys; from fmnist.registry import make_database; make_database(sys.argv[1])"
NOTEBOOK = "fashion_mnist.ipynb"
NO_NEWS = (
    '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}'  # it asks whether to fetch any
)


@dataclass(frozen=True)
class Server:
    """One process that answers on a port."""

    port: Port
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health: str
    """A path that answers 200 once it works."""
    page: str = ""
    """The path that a browser opens."""


def run_servers(
    settings: Settings,
    destinations: Destinations,
    *,
    ready: Callable[[Mapping[str, str], Path], None],
    notice: Callable[[str], None],
) -> None:
    """Run them until a signal comes. `ready` is told addresses by name, and the folder of logs, once all answer.

    Raises UserError or Failure for a port that is not to be had, a server that does not answer or that ends.
    """
    host = "127.0.0.1" if settings.host == "localhost" else settings.host  # which may be two addresses
    servers, pages = _servers(settings, destinations, host)
    check_ports(host, [server.port for server in servers])
    if Registry(destinations.mlflow_uri, destinations.model_name).is_empty_place:
        _make_database(destinations.mlflow_uri)
    logs = make_folder(settings.home.resolve() / "logs")
    pages |= {server.port.name: f"http://{netloc(host, server.port.number)}{server.page}" for server in servers}

    def watch(supervisor: Supervisor) -> None:
        for server in servers:
            _wait_for(host, server, supervisor)
        if not supervisor.ending:
            ready(pages, logs)

    supervisor = Supervisor(Logs(logs), watch)
    for server in servers:
        supervisor.add(server.port.name, server.command, _environment(settings) | dict(server.environment))
    if not is_loopback(host):
        keyless = "" if settings.api_key_file else ", and the service for no key"
        asked = f"MLflow and TensorBoard ask for no password{keyless}"
        notice(f"FMNIST_HOST {host}: {asked}; whoever reaches them can use them")
    notice("starting, a few seconds")
    supervisor.run()


def _servers(settings: Settings, destinations: Destinations, host: str) -> tuple[list[Server], dict[str, str]]:
    """What is to be started, and the addresses of what runs elsewhere."""
    names = settings.allowed_hosts
    servers = [
        tensorboard(host, _port(settings, "TensorBoard", "tensorboard_port"), destinations, names),
        notebook(host, _port(settings, "JupyterLab", "notebook_port"), settings.home.resolve(), destinations),
        service(host, _port(settings, "Service", "service_port"), settings.mlflow_port, destinations),
    ]
    if destinations.mlflow_uri.startswith("http"):
        return servers, {"MLflow": f"{one_line(destinations.mlflow_uri)} (MLFLOW_TRACKING_URI; not started here)"}
    return [mlflow(host, _port(settings, "MLflow", "mlflow_port"), destinations, names), *servers], {}


def mlflow(host: str, port: Port, destinations: Destinations, names: str = "") -> Server:
    """MLflow on the database of the trainings, who write files themselves: it must not stand between.

    `names`: further ones than this machine's own, with commas, by which it may be asked.
    """
    options = ["--host", host, "--port", str(port.number), "--workers", "1", "--uvicorn-opts", "--log-level warning"]
    options += ["--no-serve-artifacts", "--default-artifact-root", str(destinations.artifacts)]
    environment = {
        "MLFLOW_BACKEND_STORE_URI": destinations.mlflow_uri,  # it may hold a password, which `ps` would show
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, 1.3 GB, for nothing that is used
    }
    environment |= _names_for_mlflow(host, port.number, names)
    return Server(port, _python("mlflow", "server", *options), environment, "/health")


def _names_for_mlflow(host: str, port: int, further: str) -> dict[str, str]:
    """By which names it may be asked, and whose pages may change something: its own, which it knows on localhost alone.

    Of itself it also takes any name that begins like a private address. What a user has set stands.
    """
    added = named(further)
    known = known_names(host, further) or own_names()
    asked = with_port([*known, *added], port) + [f"{name}:*" for name in LOOPBACK]  # through a tunnel, any port
    pages = [f"http://{name}:{port}" for name in known]
    pages += [page for name in added for page in (f"http://{name}", f"https://{name}", f"https://{name}:{port}")]
    given = {"MLFLOW_SERVER_ALLOWED_HOSTS": asked, "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": pages}
    return {name: ",".join(values) for name, values in given.items() if name not in os.environ}


def tensorboard(host: str, port: Port, destinations: Destinations, names: str = "") -> Server:
    """TensorBoard on the folder of all runs, with the pictures of every epoch, of which it keeps ten by default."""
    options = ["--logdir", str(make_folder(destinations.logs)), "--host", host, "--port", str(port.number)]
    options += ["--samples_per_plugin", "images=1000"]
    known = known_names(host, names)
    if known is None:
        return Server(port, _python("tensorboard.main", *options), {}, "/")
    environment = {"ALLOWED_HOSTS": ",".join(known), "PUBLISHED_PORT": str(port.number)}
    return Server(port, _python("fmnist.tensorboard_server", *options), environment, "/")


def notebook(host: str, port: Port, home: Path, destinations: Destinations) -> Server:
    """JupyterLab in the checkout's notebooks/, else in the current folder, as if its user had configured nothing."""
    here = Path.cwd()
    root = (checkout_root(here) or here) / "notebooks"
    root = root if root.is_dir() else here
    own = make_folder(home / "jupyter")
    token, pages = own / "token", make_folder(own / "labconfig") / "page_config.json"
    if not pages.exists():
        write_whole(pages, NO_NEWS)
    options = {
        "ServerApp.ip": host,
        "ServerApp.port": port.number,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": root,
        "ServerApp.quit_button": False,  # it would stop the others too
        "KernelManager.shutdown_wait_time": 2,  # a busy kernel must be gone before Jupyter itself is killed
        "KernelManager.transport_encryption": "auto",  # without it, every kernel warns that it has none
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.extension_manager": "readonly",  # the other one asks PyPI
    }
    flags = ["--no-browser"] + (["--allow-root"] if os.geteuid() == 0 else [])
    environment = {
        "JUPYTER_CONFIG_DIR": str(own),
        "JUPYTER_DATA_DIR": str(own / "data"),
        "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
        "JUPYTER_PREFER_ENV_PATH": "1",  # or a kernel of the same name elsewhere is taken for this Python's
        "JUPYTER_TOKEN_FILE": str(token),
        "MLFLOW_TRACKING_URI": destinations.mlflow_uri,  # so that plain MLflow calls in a notebook end there too
    }
    command = _python("jupyterlab", *flags, *(f"--{name}={value}" for name, value in options.items()))
    start = f"/tree/{NOTEBOOK}" if (root / NOTEBOOK).exists() else ""
    page = f"/lab{start}?token={kept_token(token)}"
    return Server(port, command, environment, "/api", page)


def service(host: str, port: Port, mlflow_port: int, destinations: Destinations) -> Server:
    """The champion's service: it reads SQLite itself, and asks MLflow's server where runs are kept otherwise."""
    uri = destinations.mlflow_uri
    if not uri.startswith(("http", "sqlite")):
        uri = f"http://{netloc(host, mlflow_port)}"
    command = _python("fmnist", "serve", "--host", host, "--port", str(port.number))
    return Server(port, command, {"MLFLOW_TRACKING_URI": uri}, "/ping")


def _port(settings: Settings, name: str, field: str) -> Port:
    return Port(name, getattr(settings, field), Settings.variable(field))


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", module, *arguments)  # -P: no module of the current folder


def _environment(settings: Settings) -> dict[str, str]:
    """What every server gets: this workspace, wherever it works, and this Python's commands; no Jupyter of others."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    return environment | {
        "FMNIST_HOME": str(settings.home.resolve()),
        "FMNIST_DATA": str(settings.data.resolve()),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
    }


def kept_token(path: Path) -> str:
    """The token in the file, made the first time. One that others could have read is made anew."""
    with suppress(FileNotFoundError):
        token = path.read_text().strip()
        if token and not path.stat().st_mode & 0o077:
            return token
    token = secrets.token_urlsafe(24)
    write_whole(path, token, 0o600)
    return token


def _make_database(uri: str) -> None:
    """MLflow's SQLite file, by a process of its own: so MLflow's 200 MB do not stay."""
    making = subprocess.run([sys.executable, "-c", MAKE_DATABASE, uri], stderr=subprocess.PIPE, text=True, check=False)
    if making.returncode:
        reason = one_line(making.stderr.strip().rpartition("\n")[2])
        raise Failure(uri, f"cannot be made ({reason}); make room or mend the folder")


def _wait_for(host: str, server: Server, supervisor: Supervisor) -> None:
    """Until it answers, or all are ending already. Raises Failure."""
    until = time.monotonic() + READY_SECONDS
    while not supervisor.ending and not _answers(host, server):
        if time.monotonic() > until:
            raise Failure(server.port.name, f"does not answer after {READY_SECONDS} s; see its log, and start it again")
        time.sleep(0.2)


def _answers(host: str, server: Server) -> bool:
    connection = http.client.HTTPConnection(reached(host), server.port.number, timeout=5)  # it asks no proxy
    try:
        connection.request("GET", server.health)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
