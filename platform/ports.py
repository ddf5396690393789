"""Whether ports can be had, and who holds them if not, with nothing but the standard library."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Iterable, NamedTuple


class Wanted(NamedTuple):
    variable: str
    name: str
    """Whose it is to be."""
    given: str
    """The port, as it was given."""


def number_problem(wanted: Iterable[Wanted]) -> str | None:
    """What is wrong with what was given, as one line."""
    taken: dict[int, str] = {}
    for variable, _, given in wanted:
        if not given.isdigit() or not 1 <= int(given) <= 65535:
            return f"{variable} {given!r}: is no port; give a number from 1 to 65535"
        if other := taken.get(int(given)):
            return f"{other} and {variable}: are both {given}; give each a port of its own"
        taken[int(given)] = variable
    return None


def taken_problem(host: str, wanted: Iterable[Wanted]) -> str | None:
    """Which port is not to be had, and why, as one line."""
    problems = (_problem(host, int(given), name, variable) for variable, name, given in wanted)
    return next(filter(None, problems), None)


def _problem(host: str, port: int, name: str, variable: str) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                held = f"is taken by {holder(port)}; stop that, or set {variable} in .env to another port"
                return f"port {port} for {name}: {held}"
            if error.errno != errno.EACCES:  # a port below 1024: the engine may have it
                return f"FMNIST_HOST {host!r}: is no address of this machine; give 127.0.0.1, or 0.0.0.0 for all"
    return None


def holder(port: int) -> str:
    """Who listens there, as far as this user may see."""
    if name := _container(port):
        return f"the container {name}"
    found = _process(port)
    if found is None:
        return "a process that you may not see"
    command = _command(found)
    if _belongs_to_up(found):
        return f"make up (pid {found})"
    return f"{command or 'a process'} (pid {found})"


def _container(port: int) -> str:
    command = ["docker", "ps", "--filter", f"publish={port}", "--format", "{{.Names}}"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip().replace("\n", ", ")
    return ""


def _process(port: int) -> int | None:
    """From /proc, or from lsof where there is none."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) in sockets:
                return int(link.parts[2])
    if not sockets and shutil.which("lsof"):
        shown = subprocess.run(["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-t"], capture_output=True, text=True)
        return int(shown.stdout.split()[0]) if shown.stdout.split() else None
    return None


def _listening(port: int) -> set[str]:
    """The inodes of the sockets that listen there (proc(5): state 0A)."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:60]
    shown = subprocess.run(["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True)
    return shown.stdout.strip()


def _belongs_to_up(pid: int) -> bool:
    """Whether it, or what started it, is `fmnist up`."""
    while pid > 1:
        with contextlib.suppress(OSError):
            if re.search(rb"fmnist\0up\0", Path(f"/proc/{pid}/cmdline").read_bytes()):
                return True
            stat = Path(f"/proc/{pid}/stat").read_text()
            pid = int(stat.rpartition(")")[2].split()[1])
            continue
        return False
    return False
