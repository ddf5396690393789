"""A Ray cluster for as long as it is needed: the one at an address, or one of this machine's own.

One's own listens on the loopback, has its files in a folder of its own, and goes with the block that asked for it.
Ray itself says nothing: what goes wrong is raised.
"""

import logging
import os
import re
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fmnist.cluster.afterwards import OWNER, end_all, tidied
from fmnist.errors import Failure, UserError, causes, one_line
from fmnist.signals import ENDING, importing

PATIENCE = 5
"""Seconds for an address to answer; what Ray asks there after that has as long again."""
STARTS = 3
"""So often one's own is tried to be started: on a busy machine Ray's parts don't wait for each other long enough."""
OBJECT_BYTES = 256_000_000
"""Shared memory of one's own cluster: the images, and the states of some models."""
JOINING = {
    "RAY_gcs_server_request_timeout_seconds": str(PATIENCE),
    "RAY_NUM_REDIS_GET_RETRIES": str(PATIENCE),  # a second each
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "2",  # three times
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "2",
}
VERSIONS = r"Ray: (\S+)\s+Python: (\S+)"
"""As Ray's complaint gives them: those there, then those here."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


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
        _check_answers(address)
    notice(f"joining Ray at {address}" if address else "starting Ray")
    with ExitStack() as ends:
        ends.enter_context(_environment(QUIET | (JOINING if address else _own_environment())))
        with importing():
            import ray
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
                _join(ray, address, logs)
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
                told = f"does not start here ({_reason(error)}); see that it has memory, disk and time enough"
                raise Failure("Ray", told) from error


def _join(ray: Any, address: str, logs: bool) -> None:
    from ray._private.services import canonicalize_bootstrap_address

    if address == "auto":
        try:
            _check_answers(address := canonicalize_bootstrap_address(address))
        except (ConnectionError, Failure) as error:
            raise UserError("--address auto", "no Ray runs on this machine; start one: ray start --head") from error
    try:
        ray.init(address, log_to_driver=logs, logging_level=logging.ERROR)
        if not address.startswith("ray://"):  # there it has been done
            ray._private.worker._global_node.check_version_info()
    except Exception as error:
        raise Failure(f"Ray at {address}", _why_not_joined(error)) from error


def _why_not_joined(error: Exception) -> str:
    if found := re.search(rf"{VERSIONS}.*{VERSIONS}", _chain(error), re.DOTALL):
        ray_there, python_there, ray_here, python_here = found.groups()
        return f"is {ray_there} on Python {python_there}, here is {ray_here} on {python_here}; make them the same"
    return f"cannot be joined ({_reason(error)}); from a machine that is none of its nodes, give ray://HOST:10001"


def _check_answers(address: str) -> None:
    """Raise UserError for what is no address, Failure where nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--address {address}", "is no address; give auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise Failure(f"Ray at {address}", f"does not answer ({reason}); see that it runs, and on this port") from error


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


def _chain(error: BaseException) -> str:
    return " ".join(map(str, causes(error)))


def _reason(error: BaseException) -> str:
    return one_line(_chain(error))[:300] or type(error).__name__


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
