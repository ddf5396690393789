"""A Ray that runs already, at an address: the way to it, and why there is none."""

import logging
import re
import socket
from typing import Any

from fmnist.errors import Failure, UserError, causes, one_line

PATIENCE = 5
"""Seconds for an address to answer; what Ray asks there after that has as long again."""
SILENCE = 30
"""Seconds without a sign of life after which a connection to ray:// is lost."""
JOINING = {
    "RAY_gcs_server_request_timeout_seconds": str(PATIENCE),
    "RAY_NUM_REDIS_GET_RETRIES": str(PATIENCE),  # a second each
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "2",  # three times
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "2",
}
VERSIONS = r"Ray: (\S+)\s+Python: (\S+)"
"""As Ray's complaint gives them: those there, then those here."""


def join(ray: Any, address: str, logs: bool) -> None:
    """Connect to auto, HOST:PORT or ray://HOST:PORT. Raises UserError or Failure."""
    from ray._private.services import canonicalize_bootstrap_address

    if address == "auto":
        try:
            check_answers(address := canonicalize_bootstrap_address(address))
        except (ConnectionError, Failure) as error:
            raise UserError("--address auto", "no Ray runs on this machine; start one: ray start --head") from error
    if address.startswith("ray://"):
        _notice_silence()
    try:
        ray.init(address, log_to_driver=logs, logging_level=logging.ERROR)
        if not address.startswith("ray://"):  # there it has been done
            ray._private.worker._global_node.check_version_info()
    except Exception as error:
        raise Failure(f"Ray at {address}", _why_not_joined(error, address)) from error


def _notice_silence() -> None:
    """Ray's client takes a connection that has silently vanished for a live one, for ten minutes."""
    from ray.util.client import common

    name = "grpc.keepalive_timeout_ms"
    common.GRPC_OPTIONS[:] = [(key, SILENCE * 1000 if key == name else value) for key, value in common.GRPC_OPTIONS]


def _why_not_joined(error: Exception, address: str) -> str:
    if found := re.search(rf"{VERSIONS}.*{VERSIONS}", _chain(error), re.DOTALL):
        ray_there, python_there, ray_here, python_here = found.groups()
        return f"is {ray_there} on Python {python_there}, here is {ray_here} on {python_here}; make them the same"
    remedy = "from a machine that is none of its nodes, give ray://HOST:10001"
    if address.startswith("ray://"):  # there, why it was refused isn't told
        remedy = (
            "see that this is its port for clients (10001), and RAY_AUTH_MODE and RAY_AUTH_TOKEN those of the cluster"
        )
    return f"cannot be joined ({reason_of(error)}); {remedy}"


def check_answers(address: str) -> None:
    """Raise UserError for what is no address, Failure where nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--address {address}", "is no address; give auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise Failure(f"Ray at {address}", f"does not answer ({reason}); see that it runs, and on this port") from error


def _chain(error: BaseException) -> str:
    return " ".join(map(str, causes(error)))


def reason_of(error: BaseException) -> str:
    return one_line(_chain(error))[:300] or type(error).__name__
