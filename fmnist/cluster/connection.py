"""A Ray cluster for as long as it is needed: the one at an address, or one of this machine's own.

One's own listens on the loopback, has its files in a folder of its own, and goes with the block that asked for it.
Ray itself says nothing: what goes wrong is raised.
"""

import logging
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fmnist.cluster.afterwards import OWNER, end_all, tidied
from fmnist.cluster.joining import JOINING, check_answers, join, reason_of
from fmnist.errors import Failure, UserError
from fmnist.signals import ENDING, importing

STARTS = 3
"""So often one's own is tried to be started: on a busy machine Ray's parts don't wait for each other long enough."""
OBJECT_BYTES = 256_000_000
"""Shared memory of one's own cluster: the images, and the states of some models."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class Cluster:
    """What is connected to."""

    address: str | None
    """None: one's own."""
    cpus: int
    gpus: int
    node: str
    """The id of the node that this process talks to: its own machine's, or with ray:// the one at the address."""


@contextmanager
def connected(
    address: str | None,
    cpus: int,
    given: str = "--workers",
    notice: Callable[[str], None] = lambda text: None,
    *,
    logs: bool = False,
) -> Iterator[Cluster]:
    """The cluster at `address` (auto, HOST:PORT, ray://HOST:PORT); without one RAY_ADDRESS's, or one's own.

    It has `cpus` processors at least; `given` is the option that asked for so many. `logs`: what processes of it say
    on stderr is said here too. Raises UserError or Failure.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is None:
        _check_here(cpus, given)
    if address not in (None, "auto"):
        check_answers(address)
    notice(f"joining Ray at {address}" if address else "starting Ray")
    with ExitStack() as ends:
        ends.enter_context(_environment(QUIET | (JOINING if address else _own_environment())))
        with importing():
            import ray
        ends.enter_context(_no_other())
        if ray.is_initialized():  # what it has there would go with what is begun here
            raise UserError("Ray", "this process is connected to it already; ray.shutdown() first")
        # It prints what befalls workers on stdout, which is for results: whoever needs them hears of it by itself.
        ray._private.worker.listen_error_messages = lambda worker, threads_stopped: None
        folder = ends.enter_context(_short_folder()) if address is None else ""
        if address is None:
            ends.enter_context(tidied(folder))
        ends.callback(ray.shutdown, wait_for_processes=True)
        with _signals_kept():
            if address is None:
                with _environment({OWNER: folder}):  # Ray's processes inherit it; what begins later is not Ray's
                    _start(ray, cpus, folder, logs)
            else:
                join(ray, address, logs)
        yield _look_at(ray, address, cpus, given, notice)


def _check_here(cpus: int, given: str) -> None:
    """Raise UserError where this machine has fewer processors."""
    if cpus > (here := processors()):
        raise UserError(
            f"{given} {cpus}",
            f"is more than the {here} processor{'s' * (here != 1)} here; give at most that, or --address of a cluster",
        )


def processors() -> int:
    """Of this machine, those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def session_folder() -> str:
    """Where Ray keeps its files on the machine of this process; what lies there goes when they do."""
    import ray

    own = ray.get_runtime_context()
    return f"{own.get_temp_dir()}/{own.get_session_name()}"


def _start(ray: Any, cpus: int, folder: str, logs: bool) -> None:
    for left in reversed(range(STARTS)):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=OBJECT_BYTES,
                include_dashboard=False,
                log_to_driver=logs,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
            )
            return
        except Exception as error:
            ray.shutdown()
            end_all(folder)
            if not left:
                told = f"does not start here ({reason_of(error)}); see that it has memory, disk and time enough"
                raise Failure("Ray", told) from error


def _look_at(ray: Any, address: str | None, cpus: int, given: str, notice: Callable[[str], None]) -> Cluster:
    """What is there. Raises UserError where that is less than `cpus` processors."""
    found = ray.cluster_resources()
    cluster = Cluster(
        address, int(found.get("CPU", 0)), int(found.get("GPU", 0)), ray.get_runtime_context().get_node_id()
    )
    if cluster.cpus < cpus:
        raise UserError(
            f"{given} {cpus}", f"is more than the {cluster.cpus} processors of Ray at {address}; give at most that"
        )
    if address and (free := int(ray.available_resources().get("CPU", 0))) < cpus:
        notice(f"{free} of the {cluster.cpus} processors there are free now, {cpus} are asked for")
    return cluster


@contextmanager
def _no_other() -> Iterator[None]:
    """What is asked of a cluster that is lost would start another."""
    from ray._private import auto_init_hook as hook

    before, hook.enable_auto_connect = hook.enable_auto_connect, False
    try:
        yield
    finally:
        hook.enable_auto_connect = before


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """`values` for what begins within, where the environment says nothing itself."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def _own_environment() -> dict[str, str]:
    """A key of its own, or Ray would keep one in the user's home."""
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _key()}
    own["RAY_worker_niceness"] = "0"  # else they compute after everything else that runs here
    return own


@cache
def _key() -> str:
    return secrets.token_hex(32)  # one a process: Ray remembers it


@contextmanager
def _short_folder() -> Iterator[str]:
    """A folder for a socket, whose path must be short: the system's own for temporary files may be anywhere."""
    short = Path("/tmp")
    place = short if os.access(short, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fmnist-ray-", dir=place, ignore_cleanup_errors=True) as folder:
        yield folder


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
