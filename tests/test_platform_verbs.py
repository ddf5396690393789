"""What `make start` and its kin are made of, as far as it needs no Docker: the scripts of `platform/`."""

import ast
import os
import re
import socket
import subprocess
import sys
from importlib import import_module as load
from pathlib import Path

import pytest

PLATFORM = Path(__file__).parents[1] / "platform"
pytestmark = pytest.mark.usefixtures("no_docker")
SCRIPTS = sorted(file.stem for file in PLATFORM.glob("*.py"))


def test_ports_that_cannot_be_are_told() -> None:
    ports = load("ports")
    for given in ("web", "0", "65536", "-1", ""):
        assert ports.number_problem([("X_PORT", "X", given)]).startswith(f"X_PORT {given!r}: is no port; give")
    same = [("X_PORT", "X", "8080"), ("Y_PORT", "Y", "8080")]
    assert ports.number_problem(same) == "X_PORT and Y_PORT: are both 8080; give each a port of its own"
    assert ports.number_problem(same[:1]) is None


def test_who_holds_a_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "darwin":
        monkeypatch.setenv("PATH", "/usr/sbin:/bin")  # lsof and ps
    ports = load("ports")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = ports.taken_problem("127.0.0.1", [("X_PORT", "X", str(port))])
    assert re.match(rf"port {port} for X: is taken by .+ \(pid {os.getpid()}\); stop that, or set X_PORT in .env", told)
    assert ports.taken_problem("127.0.0.1", [("X_PORT", "X", str(port))]) is None
    assert "is no address of this machine" in ports.taken_problem("203.0.113.7", [("X_PORT", "X", str(port))])


@pytest.mark.parametrize(
    ("version", "oldest", "old"),
    [
        ("24.0.7", (24, 0), False),
        ("26.1.5+dfsg1", (24, 0), False),
        ("20.10.24", (24, 0), True),
        ("v2.17", (2, 20), True),
    ],
)
def test_an_old_version_is_told(version: str, oldest: tuple[int, int], old: bool) -> None:
    engine = load("engine")
    if not old:
        return engine._check_age("docker", version, oldest)
    with pytest.raises(engine.Trouble, match=f"docker {re.escape(version)}: is too old; install {oldest[0]}"):
        engine._check_age("docker", version, oldest)
    return None


def test_without_docker_it_says_what_to_install() -> None:
    engine = load("engine")
    with pytest.raises(engine.Trouble, match="docker: is not installed; install Docker 24 or newer"):
        engine.check_engine()


def test_the_first_settings_name_who_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    starting = load("starting")
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setattr(os, "getgid", lambda: 567)
    monkeypatch.setenv("SUDO_USER", "ada")
    told = starting._first_settings()
    assert "\nPLATFORM_UID=1234\nPLATFORM_GID=567\nPLATFORM_USER=ada\n" in told
    monkeypatch.setattr(os, "getuid", lambda: 0)
    for name in ("SUDO_UID", "SUDO_GID"):
        monkeypatch.delenv(name, raising=False)
    assert "\nPLATFORM_UID=1000\nPLATFORM_GID=1000\n" in starting._first_settings()
    monkeypatch.setenv("SUDO_UID", "1001")
    monkeypatch.setenv("SUDO_GID", "1002")
    assert "\nPLATFORM_UID=1001\nPLATFORM_GID=1002\n" in starting._first_settings()


def test_no_key_is_asked_for_until_somebody_writes_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    starting = load("starting")
    monkeypatch.setattr(starting, "ROOT", tmp_path)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "mlflow_database_password").touch()  # or Docker is asked for a database
    starting.make_secrets()
    key = tmp_path / "secrets" / "api_key"
    assert key.read_text() == ""
    key.write_text("a key of one's own")
    starting.make_secrets()
    assert key.read_text() == "a key of one's own"
    assert "api_key" not in starting.GENERATED  # which a reset deletes


def test_postgres_is_woken_without_making_folders_which_a_turn_may_have_moved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("starting", "database"):
        monkeypatch.setattr(load(name), "ROOT", tmp_path)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "mlflow_database_password").touch()
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(load("database"), "compose", lambda *command, **_: asked.append(command))
    load("database").wake()
    assert asked == [("up", "--detach", "--wait", "postgres")]
    assert (tmp_path / "secrets" / "postgres_password").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["secrets"]


@pytest.mark.parametrize(
    ("state", "asked"),
    [("running", []), ("restarting", ["up"]), ("exited", ["up", "stop"]), (None, ["up", "stop"])],
)
def test_postgres_is_stopped_again_only_where_it_was(
    monkeypatch: pytest.MonkeyPatch, state: str | None, asked: list[str]
) -> None:
    """One that restarts is the platform's own, which needs it."""
    database, done = load("database"), []
    monkeypatch.setattr(database, "make_secrets", lambda: None)
    monkeypatch.setattr(database, "containers", lambda: [{"Service": "postgres", "State": state}] if state else [])
    monkeypatch.setattr(database, "compose", lambda *command, **_: done.append(command[0]))
    with database.awake():
        pass
    assert done == asked


def test_what_a_dump_has_made_is_asked_as_no_superuser(monkeypatch: pytest.MonkeyPatch) -> None:
    database, users = load("database"), []

    def compose(*command: str, **_: object) -> "subprocess.CompletedProcess[str]":
        users.append(command[command.index("--username") + 1])
        return subprocess.CompletedProcess(command, 0, "1\n", "")

    monkeypatch.setattr(database, "compose", compose)
    database.schema(database.NEXT)
    database.size()
    database.exists("mlflow")
    assert users == ["mlflow", "mlflow", "postgres"]


def test_files_are_handed_over_without_following_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "gone").touch()
    (tmp_path / "a" / "link").symlink_to("/etc")
    given: list[tuple[str, int, int]] = []

    def chown(path: object, uid: int, gid: int, *, dir_fd: int | None = None, follow_symlinks: bool) -> None:
        assert not follow_symlinks
        assert dir_fd is not None or path == tmp_path
        if path == "gone":
            raise FileNotFoundError(path)
        given.append((Path(str(path)).name, uid, gid))

    monkeypatch.setattr(os, "chown", chown)
    load("starting")._hand_over(tmp_path, 1, 2)
    assert sorted(given) == sorted((name, 1, 2) for name in (tmp_path.name, "a", "b", "link"))


def test_every_setting_of_compose_is_explained() -> None:
    named = set(re.findall(r"\$\{([A-Z0-9_]+)", (PLATFORM.parent / "compose.yaml").read_text()))
    explained = set(re.findall(r"^#?([A-Z0-9_]+)=", (PLATFORM.parent / ".env.example").read_text(), re.MULTILINE))
    assert named == explained


def test_images_install_pinned_packages_only() -> None:
    pinned = {line.split("==")[0] for line in (PLATFORM.parent / "constraints.txt").read_text().splitlines()}
    for file in PLATFORM.glob("*/requirements.txt"):
        assert {line.split("==")[0] for line in file.read_text().splitlines()} <= pinned, file
    for file in PLATFORM.glob("*/Dockerfile"):
        (base,) = re.findall(r"^FROM (.+)$", file.read_text(), re.MULTILINE)
        assert base in ("postgres:17-bookworm", "python:3.11-slim-bookworm"), file


def test_every_page_has_a_published_port_and_a_service_of_compose() -> None:
    composed = (PLATFORM.parent / "compose.yaml").read_text()
    for service, (_, variable, default) in load("starting").SERVICES.items():
        assert f"\n  {service}:" in composed
        assert f'ports: ["${{FMNIST_HOST:-127.0.0.1}}:${{{variable}:-{default}}}:' in composed


def test_rays_dashboard_is_published_on_this_machine_alone_and_nothing_else_of_ray_is() -> None:
    composed = (PLATFORM.parent / "compose.yaml").read_text()
    head, worker = re.findall(r"^  ray-(?:head|worker):.*\n((?:    .*\n)+)", composed, re.MULTILINE)
    ((_, variable, default),) = load("starting").CLUSTER.values()
    assert f'ports: ["127.0.0.1:${{{variable}:-{default}}}:8265"]' in head
    assert "ports:" not in worker and "networks: [cluster]" in worker
    assert re.search(r"^  cluster: \{internal: true\}", composed, re.MULTILINE)


@pytest.mark.parametrize(
    ("profiles", "wanted"), [("", False), ("s3", False), ("cluster", True), ("s3,cluster", True), ("clusters", False)]
)
def test_the_cluster_is_there_if_its_profile_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profiles: str, wanted: bool
) -> None:
    engine = load("engine")
    monkeypatch.setattr(engine, "ROOT", tmp_path)
    monkeypatch.delenv("COMPOSE_PROFILES", raising=False)
    assert not engine.has_profile("cluster")  # before the first start, without .env
    (tmp_path / ".env").write_text(f"COMPOSE_PROFILES={profiles}\n")
    assert engine.has_profile("cluster") is wanted
    monkeypatch.setenv("COMPOSE_PROFILES", "cluster")
    assert engine.has_profile("cluster")


def test_they_use_nothing_that_python_3_8_lacks() -> None:
    for name in SCRIPTS:
        source = (PLATFORM / f"{name}.py").read_text()
        tree = ast.parse(source, feature_version=(3, 8))
        merged = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)]
        assert not any(isinstance(side, ast.Dict | ast.DictComp) for node in merged for side in (node.left, node.right))
        assert not re.search(
            r"\.(removeprefix|removesuffix|readlink|is_relative_to)\(|zip\(.*strict", source.replace("os.readlink(", "")
        )
