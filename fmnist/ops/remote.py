"""A server asked, and a store of files tried out: written, read back, deleted."""

import http.client
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlparse

from fmnist.errors import Failure

PATIENCE = 4
"""Seconds for an answer: all that doctor asks, at the same time, is to take less than ten."""


def ask(method: str, address: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """(status, answer). It asks no proxy. Raises OSError or HTTPException where nothing answers as HTTP does."""
    answer, content = _asked(method, address, path, body)
    return answer.status, content


def server_time(address: str) -> float | None:
    """What the server's clock shows, as Unix time, if it tells. Raises what `ask` raises, ValueError for no date."""
    told = _asked("GET", address, "/version")[0].headers["Date"]
    return parsedate_to_datetime(told).timestamp() if told else None


def _asked(method: str, address: str, path: str, body: bytes | None = None) -> tuple[http.client.HTTPResponse, bytes]:
    parts = urlparse(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        connection.request(method, parts.path.rstrip("/") + path, body)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def local_trial(path: Path) -> Callable[[bytes], bytes]:
    """Writes its argument to the file, which is not there yet, and gives what it read back. It raises OSError."""

    def trial(content: bytes) -> bytes:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.write_bytes(content)
            return path.read_bytes()
        finally:
            path.unlink(missing_ok=True)

    return trial


def remote_trial(uri: str, path: str) -> Callable[[bytes], bytes]:
    """The same through a server. It raises Failure where that refuses, and what `ask` raises."""

    def step(method: str, body: bytes | None = None) -> bytes:
        status, answer = ask(method, uri, path, body)
        if status != http.client.OK:
            raise Failure(f"{method}", f"was answered with {status}")
        return answer

    def trial(content: bytes) -> bytes:
        step("PUT", content)
        try:
            return step("GET")
        finally:
            step("DELETE")

    return trial
