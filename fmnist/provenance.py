"""Who runs what, where: what a run's record says so that it can be understood, or done again, later."""

import getpass
import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fmnist.settings import checkout_root


def _code_version() -> str:
    """The commit of the checkout that runs, with a mark if it has changed since.

    Without git, as in a container: the package's version, and a digest of its source as it is now.
    """
    root = checkout_root(Path(__file__).parent)
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return f"fmnist {version('fmnist')}, source {_source_digest()}"


def _source_digest() -> str:
    """What the package's files hold, as 12 hex digits."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(here.rglob("*.py")):
        digest.update(f"{path.relative_to(here)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


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
