"""The service as a process, on a real port."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmnist.predictor import Predictor

from ..helpers import free_port


class Running:
    """`fmnist serve` on a port."""

    def __init__(self, model: Path, home: Path, **environment: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "fmnist", "serve", "--model", str(model), "--port", str(self.port)]
        given = {name: value for name, value in os.environ.items() if not name.startswith(("FMNIST_", "MLFLOW_"))}
        given |= {"FMNIST_HOME": str(home), "FMNIST_POLL_SECONDS": "0.1", **environment}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=given)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr or ()))
        self._reader.start()
        while not self.is_ready():
            assert self.process.poll() is None, self.lines
            time.sleep(0.05)

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(json.loads(self.ask("GET", "/status")[1])["ready"])
        return False

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def raw(self, content: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(content)
        return connection

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def running(models: list[Path], tmp_path: Path) -> Iterator[Running]:
    """On a copy of the first model, which may be replaced."""
    path = tmp_path / "served.onnx"
    path.write_bytes(models[0].read_bytes())
    server = Running(path, tmp_path / "var")
    yield server
    server.close()


def test_models_are_swapped_under_load_and_no_request_notices(
    running: Running, models: list[Path], tmp_path: Path
) -> None:
    """The model's file is replaced many times; every answer is one of a model that was there."""
    labels = [Predictor(path).class_names[label] for label, path in enumerate(models)]
    answered = dict.fromkeys(labels, 0)
    failures: list[object] = []
    ending = threading.Event()

    def load() -> None:
        connection = running.connect()
        while not ending.is_set():
            connection.request("POST", "/predict", bytes(784))
            reply = connection.getresponse()
            content = json.loads(reply.read())
            if reply.status == 200 and (label := content["predictions"][0]["label"]) in answered:
                answered[label] += 1
            else:
                failures.append(content)
        connection.close()

    clients = [threading.Thread(target=load) for _ in range(3)]
    for client in clients:
        client.start()
    for swap in range(1, 11):
        new = tmp_path / "new"
        new.write_bytes(models[swap % 2].read_bytes())
        new.replace(tmp_path / "served.onnx")
        while json.loads(running.ask("GET", "/status")[1])["swaps"] < swap and not failures:
            time.sleep(0.01)
    ending.set()
    for client in clients:
        client.join()
    assert failures == []
    assert all(answered.values()), answered


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_answers_who_waits_and_ends_well(running: Running, number: int) -> None:
    waiting = running.raw(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 784\r\n\r\n" + bytes(700))
    while b"fmnist_requests_in_flight 2.0" not in running.ask("GET", "/metrics")[1]:  # its head has been read
        time.sleep(0.01)
    running.process.send_signal(number)
    while running.is_ready():  # until it says that it isn't, or listens no more
        time.sleep(0.01)
    waiting.sendall(bytes(84))
    answer = waiting.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200")
    waiting.close()
    assert running.process.wait(30) == 0
    assert not any("Traceback" in line for line in running.lines)


def test_broken_connections_and_no_http_harm_nobody(running: Running) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 784\r\n\r\n"
    for content in (head, head + bytes(300), b"", b"\x16\x03\x01 no http\r\n\r\n", b"GET / HTTP/1.1\r\n"):
        running.raw(content).close()
    big = b"GET /status HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 200_000
    with contextlib.suppress(OSError):
        running.raw(big).close()
    status, body = running.ask("POST", "/predict", bytes(784))
    assert (status, json.loads(body)["model"]["version"]) == (200, "served.onnx")
    assert not any('"level": "error"' in line for line in running.lines)


def test_a_port_that_is_taken_and_a_model_that_is_no_model(models: list[Path], tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        command = [sys.executable, "-m", "fmnist", "serve", "--model", str(models[0]), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"fmnist: port {port} for the service: is taken by ")
    assert len(done.stderr.splitlines()) == 1


def test_serving_needs_neither_torch_nor_mlflow(models: list[Path]) -> None:
    program = "import sys; from fmnist.serve import wiring; print([m for m in sys.modules if m in " + (
        "('torch', 'mlflow', 'pandas', 'sklearn', 'matplotlib', 'requests')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
