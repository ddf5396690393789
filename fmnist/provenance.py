"""Who runs what, where: what a run's record says so that it can be understood, or done again, later."""

import getpass
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fmnist.settings import checkout_root


def _code_version() -> str:
    """The commit of the checkout that runs, with a mark if it has changed since; else the package's version."""
    root = checkout_root(Path(__file__).parent)
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return f"fmnist {version('fmnist')}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a number without a name
        return str(os.getuid())


def provenance() -> dict[str, str]:
    """Versions of what matters, the machine, who, and the commit."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    found |= {"user": _user(), "host": platform.node(), "code": _code_version()}
    for package in ("fmnist", "torch", "numpy", "onnx", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
