"""A real MLflow server, to be killed; and a gate in front of one, which goes bad amid what it passes on."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import pytest
import requests

from ..helpers import PATIENCE, free_port

Badness = Literal["away", "broken", "hanging", "resetting", "mute"]
"""`mute`: what is asked is carried out, and the answer is lost."""
ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER with which a close tells the other side of a reset."""


class Server:
    """A real MLflow server that is started, killed and started again at one address."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        folder.mkdir()
        self.port = port or free_port()
        self.address, self._folder = f"http://127.0.0.1:{self.port}", folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        database, files = f"sqlite:///{self._folder / 'server.db'}", str(self._folder / "files")
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database]
        command += ["--artifacts-destination", files, "--workers", "1", "--port", str(self.port)]
        quiet = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, env=quiet, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.address}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.2)
        pytest.fail(f"the MLflow server did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def signal(self, number: signal.Signals) -> None:
        """To the server and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


class Gate:
    """Lets `good` pieces of what clients send pass; then it is `badness` until `open()`."""

    def __init__(self, server_port: int, badness: Badness, good: int = 0) -> None:
        self._server_port, self._badness, self._good = server_port, badness, good
        self._opened = threading.Event()
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))  # the port is kept; until it listens, connections are refused
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        if badness != "away":
            self._listen()

    def _listen(self) -> None:
        self._socket.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def open(self) -> None:
        """All is well from now on."""
        self._opened.set()
        if self._badness == "away":
            self._listen()

    def close(self) -> None:
        self._opened.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept()
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        muted = threading.Event()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._server_port)) as server:
            threading.Thread(target=_pump, args=(server, client, muted), daemon=True).start()
            while piece := client.recv(65536):
                self._good -= 1
                if self._good < 0 and not self._opened.is_set():
                    muted.set()
                    self._misbehave(client, server, piece)
                    return
                server.sendall(piece)
        client.close()

    def _misbehave(self, client: socket.socket, server: socket.socket, piece: bytes) -> None:
        if self._badness == "hanging":
            self._opened.wait()
        elif self._badness in ("resetting", "mute"):
            if self._badness == "mute":
                _hand_on(client, server, piece)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        else:
            client.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        client.close()


def _pump(server: socket.socket, client: socket.socket, muted: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while piece := server.recv(65536):
            if not muted.is_set():
                client.sendall(piece)
        client.shutdown(socket.SHUT_WR)


def _hand_on(client: socket.socket, server: socket.socket, piece: bytes) -> None:
    """All of a request, which has come as far as `piece`; there is time to carry it out."""
    client.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while piece:
            server.sendall(piece)
            piece = client.recv(65536)
