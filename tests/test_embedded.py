import json
import socket
import stat
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest

from fmnist import embedded
from fmnist.embedded import kept_token
from fmnist.ports import Port
from fmnist.workspace import Workspace

Command = Callable[..., tuple[int, str, str]]

HOST = "127.0.0.1"


def test_the_token_is_its_owners_alone_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = kept_token(path)
    assert len(token) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == token  # a line's end would be part of it for Jupyter
    assert kept_token(path) == token


def test_a_token_that_others_could_read_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = kept_token(path)
    path.chmod(0o644)
    assert kept_token(path) != token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_tensorboard_knows_its_names(workspace: Workspace) -> None:
    port, to = Port("TensorBoard", 6006, ""), workspace.destinations
    names = embedded.tensorboard("127.0.0.2", port, to).environment["ALLOWED_HOSTS"]
    assert names == "127.0.0.1,127.0.0.2,[::1],localhost"
    guarded = embedded.tensorboard("0.0.0.0", port, to, "box")
    assert "fmnist.tensorboard_server" in guarded.command and "box" in guarded.environment["ALLOWED_HOSTS"].split(",")
    for names in ("", "*"):
        assert "tensorboard.main" in embedded.tensorboard("0.0.0.0", port, to, names).command


def test_mlflows_own_pages_may_change_something_under_every_name(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts, origins = "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"

    def names(host: str, further: str) -> dict[str, list[str]]:
        server = embedded.mlflow(host, Port("MLflow", 5000, ""), workspace.destinations, further)
        return {name: server.environment[name].split(",") for name in (hosts, origins) if name in server.environment}

    named = names("0.0.0.0", " Box, ")  # browsers send small letters
    assert {"box", "box:5000", "localhost:5000", "localhost:*"} <= set(named[hosts])
    assert {"http://box:5000", "https://box"} <= set(named[origins])
    assert "*" in names("127.0.0.1", "*")[hosts] and {"http://*", "https://*"} <= set(names("127.0.0.1", "*")[origins])
    alone = names("127.0.0.2", ",")
    assert {"127.0.0.2:5000", "127.0.0.1:*"} <= set(alone[hosts]) and "https://127.0.0.2" not in alone[origins]
    assert not any(fnmatch("10.evil.example:5000", pattern) for pattern in alone[hosts])  # MLflow's own list has it
    unnamed = names("0.0.0.0", "")
    for name in ("127.0.0.1", socket.gethostname().lower()):
        assert f"{name}:5000" in unnamed[hosts] and f"http://{name}:5000" in unnamed[origins]
    monkeypatch.setenv(origins, "https://mine.example")  # what a user has set stands
    assert origins not in names("0.0.0.0", "box") and hosts in names("0.0.0.0", "box")


def test_no_command_holds_a_secret(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hunter2@db/mlflow")
    destinations = Workspace(type(workspace.settings)()).destinations
    home = workspace.settings.home
    servers = [
        embedded.mlflow(HOST, Port("MLflow", 1, ""), destinations),
        embedded.tensorboard(HOST, Port("TensorBoard", 2, ""), destinations),
        embedded.notebook(HOST, Port("JupyterLab", 3, ""), home, destinations),
        embedded.service(HOST, Port("Service", 4, ""), 1, destinations),
    ]
    token = (home / "jupyter" / "token").read_text()
    assert servers[2].page == f"/lab?token={token}"
    for server in servers:
        assert "hunter2" not in json.dumps(server.command)
        assert token not in json.dumps(server.command) + json.dumps(dict(server.environment))


@pytest.mark.parametrize(
    ("uri", "asked"),
    [
        ("http://tracking.example", "http://tracking.example"),
        ("sqlite:////somewhere/mlflow.db", "sqlite:////somewhere/mlflow.db"),
        ("postgresql://me:hunter2@db/mlflow", f"http://{HOST}:5001"),  # through the MLflow that is started beside
    ],
)
def test_the_service_reads_the_registry_where_it_can(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, uri: str, asked: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    destinations = Workspace(type(workspace.settings)()).destinations
    service = embedded.service(HOST, Port("Service", 4, ""), 5001, destinations)
    assert service.environment["MLFLOW_TRACKING_URI"] == asked


def test_the_notebook_opens_where_it_is(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / embedded.NOTEBOOK).touch()
    port, home = Port("JupyterLab", 3, ""), workspace.settings.home
    elsewhere = embedded.notebook(HOST, port, home, workspace.destinations)
    assert f"--ServerApp.root_dir={tmp_path / 'notebooks'}" in elsewhere.command
    assert elsewhere.page.startswith(f"/lab/tree/{embedded.NOTEBOOK}?token=")
    monkeypatch.chdir(home)
    assert f"--ServerApp.root_dir={home}" in embedded.notebook(HOST, port, home, workspace.destinations).command


def test_nothing_starts_where_a_port_is_taken(fmnist: Command, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(embedded, "Supervisor", None)
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("FMNIST_TENSORBOARD_PORT", str(port))
        monkeypatch.setenv("FMNIST_MLFLOW_PORT", "0")
        assert fmnist("up") == (2, "", "fmnist: FMNIST_MLFLOW_PORT 0: is too small; give at least 1\n")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # no MLflow, whose port is not looked at
        monkeypatch.delenv("FMNIST_MLFLOW_PORT")
        code, out, err = fmnist("up")
    assert (code, out) == (1, "")
    assert err.startswith(f"fmnist: port {port} for TensorBoard: is taken by ")
    assert len(err.splitlines()) == 1
    assert not (home / "mlflow.db").exists()


def test_equal_ports_name_both(fmnist: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMNIST_NOTEBOOK_PORT", "6006")
    told = "fmnist: FMNIST_TENSORBOARD_PORT and FMNIST_NOTEBOOK_PORT: are both 6006; give each a port of its own\n"
    assert fmnist("up") == (2, "", told)


def test_a_database_that_cannot_be_made_is_told(fmnist: Command, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW", "TENSORBOARD", "NOTEBOOK", "SERVICE"):
        with socket.create_server((HOST, 0)) as free:
            monkeypatch.setenv(f"FMNIST_{name}_PORT", str(free.getsockname()[1]))
    monkeypatch.setattr(embedded, "MAKE_DATABASE", "raise SystemExit('a long story\\nno room on disk')")
    code, _, err = fmnist("up")
    told = f"fmnist: sqlite:///{home / 'mlflow.db'}: cannot be made (no room on disk); make room or mend the folder\n"
    assert (code, err) == (1, told)
