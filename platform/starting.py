"""What a start needs and does: .env, secrets, folders and ports; containers up and healthy; where they are."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import sys
from pathlib import Path

from artifacts import check_place
from engine import ROOT, Trouble, check_engine, check_ours, compose, containers, docker, has_profile, project, settings
from ports import Wanted, number_problem, taken_problem
from sets import write_whole

SERVICES = {  # whose pages a browser opens: name, setting, default
    "notebook": ("JupyterLab", "FMNIST_NOTEBOOK_PORT", "8888"),
    "tensorboard": ("TensorBoard", "FMNIST_TENSORBOARD_PORT", "6006"),
    "mlflow": ("MLflow", "FMNIST_MLFLOW_PORT", "5000"),
    "api": ("Service", "FMNIST_SERVICE_PORT", "8000"),
}
CLUSTER = {"ray-head": ("Ray", "RAY_DASHBOARD_PORT", "8265")}
"""Of the profile `cluster`; on this machine alone, whatever FMNIST_HOST is."""
WRITTEN = ("var/data", "var/home", "var/models", "var/runs", "var/sweeps", "var/tensorboard", "notebooks")
"""What the notebook writes to."""
LABEL = '{{index .Config.Labels "fmnist.profiles"}}'
"""The profiles that the notebook's image was built with."""
GENERATED = ("postgres_password", "mlflow_database_password", "jupyter_token", "ray_token")


def prepare() -> None:
    """Make what a first start needs: .env, secrets, folders. What is there stays as it is."""
    if not (ROOT / ".env").exists():
        write_whole(ROOT / ".env", _first_settings().encode(), 0o644)
    check_ours()
    make_secrets()
    owner = settings()
    for name in (*WRITTEN, "data"):
        (ROOT / name).mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0 and owner.get("PLATFORM_UID", "").isdigit():  # the notebook runs as somebody else
        for name in WRITTEN:
            _hand_over(ROOT / name, int(owner["PLATFORM_UID"]), int(owner["PLATFORM_GID"]))


def _hand_over(folder: Path, uid: int, gid: int) -> None:
    """By descriptors: what runs in the notebook can put no link to other files in the way meanwhile."""
    os.chown(folder, uid, gid, follow_symlinks=False)
    for _, folders, files, here in os.fwalk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):  # it was replaced or deleted meanwhile
                os.chown(name, uid, gid, dir_fd=here, follow_symlinks=False)


def _first_settings() -> str:
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:  # whom sudo is for; nothing runs as root
        uid, gid = (int(os.environ.get(f"SUDO_{name}") or 1000) or 1000 for name in ("UID", "GID"))
    text = (ROOT / ".env.example").read_text()
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    for name, value in {"PLATFORM_UID": uid, "PLATFORM_GID": gid, "PLATFORM_USER": user}.items():
        text = text.replace(f"\n{name}=\n", f"\n{name}={value}\n")
    return text


def make_secrets() -> None:
    """Those that are not there yet. Raises Trouble where the database was made with one that is gone."""
    folder = ROOT / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    keys = f"[default]\naws_access_key_id = {secrets.token_hex(10)}\naws_secret_access_key = {secrets.token_hex(20)}\n"
    made = {**{name: secrets.token_urlsafe(24) for name in GENERATED}, "s3_credentials": keys, "api_key": ""}
    missing = [name for name in made if not (folder / name).exists()]
    if "mlflow_database_password" in missing and _has_database():
        raise Trouble(
            "secrets/mlflow_database_password: is gone, and the database was made with it; restore it; give this "
            "checkout a PLATFORM_NAME of its own, if it is another's; or delete the database with make reset"
        )
    for path in (folder / name for name in set(made) - set(missing)):
        mode = path.stat().st_mode
        if not path.is_symlink() and mode & 0o444 != 0o444:  # closed by a mask or an archive: nobody would get in
            path.chmod(mode | 0o444)
    for name in missing:  # containers read them as other users: the folder is what keeps people out
        write_whole(folder / name, made[name].encode(), 0o644)


def _has_database() -> bool:
    return docker("volume", "inspect", f"{project()}_database", check=False, capture_output=True).returncode == 0


def check_own_ports() -> None:
    """Raise Trouble for a port that cannot be one, or that somebody else holds."""
    values = settings()
    wanted = {
        service: Wanted(variable, name, values.get(variable) or default)
        for service, (name, variable, default) in {**SERVICES, **_clusters()}.items()
    }
    problem = number_problem(wanted.values())
    if not problem:
        running = {container["Service"] for container in containers() if container["State"] == "running"}
        free = {service: port for service, port in wanted.items() if service not in running}
        own = [free.pop(service) for service in CLUSTER if service in free]
        host = values.get("FMNIST_HOST") or "127.0.0.1"
        problem = taken_problem(host, free.values()) or taken_problem("127.0.0.1", own)
    if problem:
        raise Trouble(problem)


def _clusters() -> dict[str, tuple[str, str, str]]:
    return CLUSTER if has_profile("cluster") else {}


def _settle_cluster() -> None:
    """Before a start: the notebook has Ray if there is to be a cluster; one that is not to be is gone."""
    if has_profile("cluster"):
        told = docker("image", "inspect", "--format", LABEL, f"{project()}/notebook", check=False, capture_output=True)
        if told.returncode == 0 and "cluster" not in told.stdout.strip().split(","):
            raise Trouble("the notebook's image: was built without Ray; make build")
        return
    named = ("--filter", f"label=com.docker.compose.project={project()}")
    for service in ("ray-head", "ray-worker"):
        of_it = ("--filter", f"label=com.docker.compose.service={service}")
        if left := docker("ps", "--all", "--quiet", *named, *of_it, capture_output=True).stdout.split():
            docker("rm", "--force", *left, capture_output=True)


def bring_up(arguments: list[str]) -> None:
    """Start everything, wait until all is healthy, and say where it is. Raises Trouble."""
    prepare()
    check_own_ports()
    check_place()
    _settle_cluster()
    done = compose("up", "--detach", "--wait", "--wait-timeout", "180", *arguments, check=False)
    if done.returncode:
        for container in containers():
            if container["State"] != "running" or container.get("Health") not in ("healthy", ""):
                print(f"\n{container['Service']} ({container['Status']}):", file=sys.stderr)
                compose("logs", "--no-log-prefix", "--tail", "8", container["Service"], check=False, stdout=sys.stderr)
        raise Trouble("the platform: did not get healthy, see above; make logs shows all, docs/platform.md helps")
    show_pages()
    if not (settings().get("FMNIST_HOST") or "127.").startswith("127."):
        keyless = "" if (ROOT / "secrets" / "api_key").read_text().strip() else ", and the service for no key"
        print(f"\nMLflow and TensorBoard ask for no password{keyless}: whoever reaches this address can use them")


def show_pages() -> None:
    values = settings()
    host = values.get("FMNIST_HOST") or "127.0.0.1"
    host = "localhost" if host in ("127.0.0.1", "0.0.0.0") else host
    print()
    for service, (name, variable, default) in SERVICES.items():
        page = ""
        if service == "notebook":
            page = f"/lab/tree/fashion_mnist.ipynb?token={(ROOT / 'secrets' / 'jupyter_token').read_text().strip()}"
        print(f"  {name:12} http://{host}:{values.get(variable) or default}{page}")
    for name, variable, default in _clusters().values():
        print(f"  {name:12} http://localhost:{values.get(variable) or default} (its token is in secrets/ray_token)")
    print("\nmake stop stops it, and keeps everything")


def check_started() -> None:
    check_engine()
    if not (ROOT / ".env").exists():
        raise Trouble("the platform: was never started here; make start")
    check_ours()
