"""The platform's verbs: what `make build`, `start`, `status`, `reset` and `wheels` do besides asking Docker Compose.

They need Docker and the system's Python, 3.8 or newer, and nothing else.
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import secrets
import shutil
import sys
from pathlib import Path

from engine import ROOT, Trouble, check_engine, compose, containers, docker, project, settings
from ports import Wanted, number_problem, taken_problem

SERVICES = {  # whose pages a browser opens: name, setting, default
    "notebook": ("JupyterLab", "FMNIST_NOTEBOOK_PORT", "8888"),
    "tensorboard": ("TensorBoard", "FMNIST_TENSORBOARD_PORT", "6006"),
    "mlflow": ("MLflow", "FMNIST_MLFLOW_PORT", "5000"),
    "api": ("Service", "FMNIST_SERVICE_PORT", "8000"),
}
WRITTEN = ("var/data", "var/home", "var/models", "var/runs", "var/tensorboard", "notebooks")
"""What the notebook writes to."""
GENERATED = ("postgres_password", "mlflow_database_password", "jupyter_token")


def prepare() -> None:
    """Make what a first start needs: .env, secrets, folders. What is there stays as it is."""
    if not (ROOT / ".env").exists():
        _write(ROOT / ".env", _first_settings(), 0o644)
    _make_secrets()
    owner = settings()
    for name in (*WRITTEN, "data"):
        (ROOT / name).mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0 and owner.get("PLATFORM_UID", "").isdigit():  # the notebook runs as somebody else
        for name in WRITTEN:
            for path in [ROOT / name, *(ROOT / name).rglob("*")]:
                os.chown(path, int(owner["PLATFORM_UID"]), int(owner["PLATFORM_GID"]), follow_symlinks=False)


def _first_settings() -> str:
    uid, gid = (os.getuid(), os.getgid()) if os.getuid() else (1000, 1000)
    text = (ROOT / ".env.example").read_text()
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    for name, value in {"PLATFORM_UID": uid, "PLATFORM_GID": gid, "PLATFORM_USER": user}.items():
        text = text.replace(f"\n{name}=\n", f"\n{name}={value}\n")
    return text


def _make_secrets() -> None:
    folder = ROOT / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    keys = f"[default]\naws_access_key_id = {secrets.token_hex(10)}\naws_secret_access_key = {secrets.token_hex(20)}\n"
    made = {**{name: secrets.token_urlsafe(24) for name in GENERATED}, "s3_credentials": keys, "api_key": ""}
    missing = [name for name in made if not (folder / name).exists()]
    if "mlflow_database_password" in missing and _has_database():
        raise Trouble(
            "secrets/mlflow_database_password: is gone, and the database was made with it; "
            "restore it, or delete the database with make reset"
        )
    for name in missing:  # containers read them as other users: the folder is what keeps people out
        _write(folder / name, made[name], 0o644)


def _has_database() -> bool:
    return docker("volume", "inspect", f"{project()}_database", check=False, capture_output=True).returncode == 0


def _write(path: Path, text: str, mode: int) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.chmod(mode)
    part.replace(path)


def check_own_ports() -> None:
    """Raise Trouble for a port that cannot be one, or that somebody else holds."""
    values = settings()
    wanted = {
        service: Wanted(variable, name, values.get(variable) or default)
        for service, (name, variable, default) in SERVICES.items()
    }
    problem = number_problem(wanted.values())
    if not problem:
        running = {container["Service"] for container in containers() if container["State"] == "running"}
        others = [port for service, port in wanted.items() if service not in running]
        problem = taken_problem(values.get("FMNIST_HOST") or "127.0.0.1", others)
    if problem:
        raise Trouble(problem)


def build(arguments: list[str]) -> None:
    """Build the images."""
    check_engine()
    prepare()
    compose("build", *arguments)


def start(arguments: list[str]) -> None:
    """Start everything, wait until all is healthy, and say where it is."""
    check_engine()
    prepare()
    check_own_ports()
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
    print("\nmake stop stops it, and keeps everything")


def _check_started() -> None:
    check_engine()
    if not (ROOT / ".env").exists():
        raise Trouble("the platform: was never started here; make start")


def status(arguments: list[str]) -> None:
    """What runs, how it is, and where it is to be found."""
    _check_started()
    listed = containers()
    for container in listed:
        print(f"  {container['Service']:12} {container['Status']}")
    if any(container["State"] == "running" for container in listed):
        show_pages()
    else:
        print(("\n" if listed else "") + "it does not run; make start")


def stop(arguments: list[str]) -> None:
    """Stop everything; nothing is lost."""
    _check_started()
    compose("stop", *arguments)


def logs(arguments: list[str]) -> None:
    """What the services say, and go on saying."""
    _check_started()
    compose("logs", "--tail", "100", *(arguments or ["--follow"]), check=False)


def train(arguments: list[str]) -> None:
    """`fmnist train` in the notebook's container: its own exit code."""
    _check_started()
    if not any(container["Service"] == "notebook" and container["State"] == "running" for container in containers()):
        raise Trouble("the platform: does not run; make start")
    terminal = [] if sys.stdin.isatty() and sys.stdout.isatty() else ["--no-TTY"]
    sys.exit(compose("exec", *terminal, "notebook", "fmnist", "train", *arguments, check=False).returncode)


def wheels(arguments: list[str]) -> None:
    """Fetch what the images' Dockerfiles install, as the images' own Python wants it."""
    check_engine()
    folder, mark = ROOT / "platform" / "wheels", ROOT / "platform" / "wheels" / "constraints.txt"
    mark.unlink(missing_ok=True)
    given = [name for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS") if os.environ.get(name)]
    options = ["--user", f"{os.getuid()}:{os.getgid()}", "--env", "HOME=/tmp"]
    options += [option for name in given for option in ("--env", name)]
    if Path(local := os.environ.get("PIP_FIND_LINKS") or "none").is_dir():
        options += ["--volume", f"{Path(local).resolve()}:{local}:ro"]
    options += ["--volume", f"{ROOT}:/checkout:ro", "--volume", f"{folder}:/wheels"]
    needs = ["/checkout[notebook]", "/checkout[serve]", *_build_needs()]
    for file in sorted((ROOT / "platform").glob("*/requirements.txt")):
        needs += ["--requirement", f"/checkout/platform/{file.parent.name}/requirements.txt"]
    command = ["python", "-m", "pip", "download", "--dest", "/wheels", "--constraint", "/checkout/constraints.txt"]
    docker("run", "--rm", *options, "python:3.11-slim-bookworm", *command, *needs, *arguments)
    shutil.copy(ROOT / "constraints.txt", mark)  # it is complete for these: install.sh compares


def _build_needs() -> list[str]:
    """What pip builds an editable package with: by pyproject.toml, and by hatchling when it runs."""
    described = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^requires = \[(.*)\]$", described, re.MULTILINE)
    return [*re.findall('"(.*?)"', listed), "editables"]


def reset(arguments: list[str]) -> None:
    """Delete database, artifacts and generated secrets, after asking."""
    _check_started()
    print(
        "This deletes all that MLflow knows of runs, all models and artifacts it keeps on this machine, and passwords"
    )
    print("and token. The runs' own folders and TensorBoard's logs (var/), notebooks/, data/, .env and your own keys")
    print("(secrets/s3_credentials, secrets/api_key) stay.")
    if arguments != ["--yes"] and (not sys.stdin.isatty() or input("Type yes to delete: ").strip() != "yes"):
        raise Trouble("nothing was deleted; that takes a yes at the terminal, or make reset ARGS=--yes")
    compose("down", "--volumes", "--remove-orphans")
    for name in GENERATED:
        (ROOT / "secrets" / name).unlink(missing_ok=True)


VERBS = {verb.__name__: verb for verb in (build, start, stop, status, logs, reset, train, wheels)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    chosen, rest = parser.parse_known_args()
    try:
        VERBS[chosen.verb](rest)
    except Trouble as trouble:
        print(f"platform: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"platform: {error.filename}: {error.strerror}; mend that, and try again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
