"""What tests in several folders need, and is no fixture."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import onnx
import uvicorn
from onnx import numpy_helper

from fmnist.data.dataset import Dataset
from fmnist.progress import Silent
from fmnist.recipe import TrainConfig
from fmnist.run import Run
from fmnist.settings import Settings
from fmnist.tracking.tracker import JournalTracker
from fmnist.workspace import Workspace


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


DATA = Path(__file__).parent / "data"
ELSEWHERE = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "RAY_ADDRESS"
"""With these set, programs would reach other people's servers."""
PATIENCE = 180  # seconds; a busy machine is no fault


def until(found: Callable[[], Any], process: "subprocess.Popen[str] | None" = None) -> Any:
    """What `found` gives, once it gives something. `process`: what is to bring it about, so that it has to run."""
    end = time.monotonic() + PATIENCE
    while not (result := found()):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    return result


def environment_of(home: Path) -> dict[str, str]:
    """What a process gets that is to work there, on the tests' images."""
    own = {"FMNIST_HOME": str(home), "FMNIST_DATA": str(DATA), "FMNIST_DOWNLOAD": "no"}
    return {name: os.environ[name] for name in os.environ if name not in ELSEWHERE} | own


class Quiet(BaseHTTPRequestHandler):
    """Tells the terminal nothing."""

    def reply(self, status: int, body: object = b"") -> None:
        """Bytes as they are, all else as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None: ...


@contextmanager
def web_server(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on this machine that answers so."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def asgi_server(app: Any, **options: Any) -> Iterator[int]:
    """The port on which an application listens."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, ws="none", lifespan="off", log_config=None, **options))
    thread = Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


def leaning(path: Path, to: int, out: Path) -> Path:
    """A copy of the model that takes everything for class `to`."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.dims == [10]:  # the last layer's bias
            values = numpy_helper.to_array(tensor).copy()
            values[to] += 1000
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, out)
    return out


class NoProcess:
    """Stands for a shipper that has nothing to do."""

    returncode = 0

    def poll(self) -> int:
        return 0


def train_with_journal(home: Path, config: TrainConfig, data: Dataset, **about: object) -> Run:
    """A finished run with its journal, sent nowhere."""
    job = Workspace(Settings(home=home)).new_run(config, data, "cpu", **about)  # type: ignore[arg-type]
    tracker = JournalTracker(job.run, lambda: NoProcess(), print)  # type: ignore[arg-type, return-value]
    return job.train(Silent(), tracker)
