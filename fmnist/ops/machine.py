"""This machine: Python, disk, memory, GPU, clock, ports."""

import http.client
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

import psutil

from fmnist.errors import one_line
from fmnist.ops.finding import Finding
from fmnist.ops.remote import PATIENCE, server_time
from fmnist.ports import Port, is_own, port_holder

GIGABYTE = 1024**3
LEAST_DISK, LEAST_MEMORY = 2 * GIGABYTE, GIGABYTE
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""No clock that is right shows less: this program is younger."""
CLOCKS_APART = 60
"""Seconds; what is tracked is sorted by time."""


def python() -> Finding:
    from packaging.specifiers import SpecifierSet

    wanted = metadata("fmnist")["Requires-Python"]
    told = f"{platform.python_version()} at {sys.executable}"
    if not SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        return Finding("python", "bad", told, f"install Python {wanted}, then make PYTHON=python3.12 -B setup")
    return Finding("python", "ok", told)


def disk(home: Path) -> Finding:
    place = next(folder for folder in (home.resolve(), *home.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    told = f"{free / GIGABYTE:.1f} GB free at {place}"
    if free < LEAST_DISK:
        return Finding("disk", "bad", told, "make room: a training and its records may need 2 GB")
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("disk", "bad", f"{place} cannot be written to", "allow it, or set FMNIST_HOME to another folder")
    return Finding("disk", "ok", told)


def memory() -> Finding:
    free = psutil.virtual_memory().available
    told = f"{free / GIGABYTE:.1f} GB available"
    if free < LEAST_MEMORY:
        return Finding("memory", "warning", told, "a training needs 1 GB: end what else runs")
    return Finding("memory", "ok", told)


def gpu() -> Finding:
    """As NVIDIA's driver tells: PyTorch takes seconds to load."""
    if not (program := shutil.which("nvidia-smi")):
        return Finding("gpu", "off", "no NVIDIA driver; trainings run on the CPU")
    command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    remedy = "mend NVIDIA's driver (after its update, restart the machine); until then trainings run on the CPU"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return Finding("gpu", "warning", f"nvidia-smi: does not answer within {PATIENCE} s", remedy)
    if done.returncode or not done.stdout.strip():
        told = one_line(done.stderr or done.stdout) or "the driver knows of none"
        return Finding("gpu", "warning", f"nvidia-smi: {told}", remedy)
    told = "; ".join(line.strip() for line in done.stdout.strip().splitlines())
    with suppress(PackageNotFoundError):
        if version("torch").endswith("+cpu"):
            return Finding("gpu", "warning", f"{told}, but PyTorch is its CPU build", "install PyTorch's CUDA build")
    return Finding("gpu", "ok", told)


def clock(home: Path, mlflow: str) -> Finding:
    """Compared with MLflow's server, where there is one, and with what was written here last."""
    now, remedy = time.time(), "set it: timedatectl set-ntp true"
    told = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if now < EARLIEST or _newest(home) > now + CLOCKS_APART:
        why = "that has long passed" if now < EARLIEST else f"files in {home} are from later"
        return Finding("clock", "warning", f"{told}: {why}", remedy)
    with suppress(OSError, ValueError, http.client.HTTPException):
        if mlflow.startswith("http") and (theirs := server_time(mlflow)):
            if abs(apart := theirs - time.time()) > CLOCKS_APART:
                order = "ahead of" if apart > 0 else "behind"
                told = f"{told}; the clock of {one_line(mlflow)} is {abs(apart):.0f} s {order} it"
                return Finding("clock", "warning", told, f"{remedy}, on both machines")
            return Finding("clock", "ok", f"{told}, as MLflow's server says too")
    return Finding("clock", "ok", told)


def _newest(home: Path) -> float:
    """When something was last written there, as Unix time."""
    moments = [0.0]
    for path in [*home.glob("*"), *home.glob("runs/*")]:
        with suppress(OSError):  # gone meanwhile
            moments.append(path.lstat().st_mtime)
    return max(moments)


def port(wanted: Port) -> Finding:
    """Whether `fmnist up` can have it, or has it."""
    what = f"port {wanted.number}, {wanted.name}"
    with socket.socket() as probe:
        probe.settimeout(PATIENCE)
        if probe.connect_ex(("127.0.0.1", wanted.number)):
            return Finding(what, "ok", "free")
    told = f"held by {port_holder(wanted.number)}"
    if is_own(wanted.number):
        return Finding(what, "ok", told)
    return Finding(what, "warning", told, f"stop that, or set {wanted.variable} to another port, before fmnist up")
