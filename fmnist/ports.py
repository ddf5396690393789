"""Ports that servers are to have: whether they are free, and who holds them if not."""

import errno
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import psutil

from fmnist.errors import Failure, UserError


class Port(NamedTuple):
    name: str
    """Whose it is to be."""
    number: int
    variable: str
    """What sets it."""


def check_ports(host: str, ports: Sequence[Port]) -> None:
    """Raise UserError or Failure unless each can be had."""
    for one, other in combinations(ports, 2):
        if one.number == other.number:
            given = f"{one.variable} and {other.variable}"
            raise UserError(given, f"are both {one.number}; give each a port of its own")
    for port in ports:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port.number, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: what is closing counts not
                probe.bind(address)
        except OSError as error:
            raise _explained(error, host, port) from error


def _explained(error: OSError, host: str, port: Port) -> UserError | Failure:
    if error.errno == errno.EADDRINUSE:
        problem = f"is taken by {port_holder(port.number)}; stop that, or set {port.variable} to another port"
        return Failure(f"port {port.number} for {port.name}", problem)
    if error.errno == errno.EACCES:
        return UserError(f"{port.variable} {port.number}", "is for root only; give one from 1024 on")
    reason = error.strerror or error
    return UserError(f"FMNIST_HOST {host}", f"is no address of this machine ({reason}); give 127.0.0.1 or 0.0.0.0")


def port_holder(port: int) -> str:
    """Who listens there, as far as this user may see."""
    with suppress(psutil.Error):
        if process := _listener(port):
            return f"{process.name()} (pid {process.pid}, user {process.username()})"
    return "a process that you may not see"


def is_own(port: int) -> bool:
    """Whether what listens there, or what began it, is a command of this package."""
    with suppress(psutil.Error):
        if process := _listener(port):
            return any(_is_command(one) for one in (process, *process.parents()))
    return False


def _listener(port: int) -> psutil.Process | None:
    for process in psutil.process_iter():  # one by one: asked for all at once, macOS wants root
        with suppress(psutil.Error):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return process
    return None


def _is_command(process: psutil.Process) -> bool:
    """`python … fmnist …`, or `python -m fmnist …`."""
    with suppress(psutil.Error):
        python, *words = process.cmdline()[:5] or [""]
        return Path(python).name.lower().startswith("python") and "fmnist" in {Path(word).name for word in words}
    return False


def reached(host: str) -> str:
    """The address under which this machine reaches what listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def url_host(host: str) -> str:
    """The name in a URL, and in a `Host` header, of what listens on `host`."""
    address = reached(host)
    return f"[{address}]" if ":" in address else address


def netloc(host: str, port: int) -> str:
    """As it is written in a URL."""
    return f"{url_host(host)}:{port}"


def named(further: str) -> list[str]:
    """Names that are given with commas, as browsers send them."""
    return [name.strip().lower() for name in further.split(",") if name.strip()]


def known_names(host: str, further: str) -> list[str] | None:
    """Names by which what listens on `host` may be asked; None: by any.

    `further`: of its owner, with commas. Under which a network knows this machine, only its owner can say.
    """
    added = named(further)
    if "*" in added or (not added and not is_loopback(host)):
        return None
    return sorted({"localhost", "127.0.0.1", "[::1]", url_host(host), *added})


def own_names() -> list[str]:
    """This machine's: its own, and the addresses of its networks."""
    families = (socket.AF_INET, socket.AF_INET6)
    found = [one.address for each in psutil.net_if_addrs().values() for one in each if one.family in families]
    return ["localhost", socket.gethostname().lower(), *(url_host(address.partition("%")[0]) for address in found)]


def with_port(names: Iterable[str], port: int) -> list[str]:
    """As a `Host` header may have them: browsers leave the usual port out."""
    return [form for name in names for form in (name, f"{name}:{port}")]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
