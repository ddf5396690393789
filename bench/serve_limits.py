"""The serving benchmark's further questions: how soon it answers, what a lone client feels, what a crowd does to it."""

import http.client
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ours_serve import BATCHING, PARTS
from servers import Question, Running, load, running

from fmnist.embedded import mlflow
from fmnist.ports import Port
from fmnist.workspace import Workspace

OURS = [sys.executable, "-P", "-m", "fmnist", "serve", "--port", "PORT"]
WITHOUT = [sys.executable, str(Path(__file__).parent / "ours_serve.py"), "PORT"]
PAUSE = 0.02  # seconds between two questions of the one whose answers are timed while a crowd asks
SETTLED = 10  # seconds after which memory should grow no more


def starts(workspace: Workspace, model: Path, question: Question, count: int) -> dict[str, list[float]]:
    """Seconds from the start of the process to its first answer, by where the model comes from."""
    places: dict[str, list[float]] = {}
    port = Port("MLflow", 0, "")
    server = mlflow("127.0.0.1", port, workspace.destinations)
    command = ["PORT" if part == "0" else part for part in server.command]
    with running(command, server.health, None, server.environment) as registry:
        over_rest = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{registry.port}"}
        for _ in range(count):
            for place, options, environment in (
                ("an .onnx file", ["--model", str(model)], {}),
                ("the registry in SQLite", [], {}),
                ("the registry over REST", [], over_rest),
            ):
                with running([*OURS, *options], "/predict", question, environment) as ours:
                    places.setdefault(place, []).append(ours.started)
    return places


def lone(question: Question, rounds: int, seconds: float) -> dict[str, list[float]]:
    """p50 in milliseconds of one connection, with the batcher and without, in turn."""
    found: dict[str, list[float]] = {"batching": [], "bypassed": []}
    with running(OURS, "/predict", question) as ours, running([*WITHOUT, BATCHING], "/predict", question) as direct:
        for _ in range(rounds):
            for name, server in zip(found, (ours, direct), strict=True):
                asked = load(server.port, "/predict", question, connections=1, seconds=seconds)
                found[name].append(asked.p50)
    return found


def parts(question: Question, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Microseconds of processor time that a request costs the server: whole, and with each part left out, in turn."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for part in ("", *PARTS):
            with running([*WITHOUT, part] if part else OURS, "/predict", question) as ours:
                load(ours.port, "/predict", question, connections=16, seconds=1)
                before = ours.process.cpu_times()
                asked = load(ours.port, "/predict", question, connections=16, seconds=seconds)
                after = ours.process.cpu_times()
            spent = after.user + after.system - before.user - before.system
            found.setdefault(part, []).append(spent / (asked.rate * seconds) * 1e6)
    return found


def overload(question: Question, connections: int, seconds: float) -> dict[str, Any]:
    """What `connections` that ask without a pause get, and what it costs the server."""
    with running(OURS, "/predict", question) as ours:
        load(ours.port, "/predict", question, connections=16, seconds=min(seconds, 3))
        watch = Watch(ours, question)
        watch.start()
        asked = load(ours.port, "/predict", question, connections=connections, seconds=seconds, statuses=True)
        watch.ending.set()
        watch.join()
    accepted = [ms for status, ms in watch.asked if status == 200]
    return {
        "rate": asked.rate,
        "statuses": asked.statuses,
        "p99_all": asked.p99,
        "p99_accepted": statistics.quantiles(accepted, n=100)[-1] if len(accepted) > 1 else None,
        "accepted": len(accepted),
        "memory": watch.memory[min(SETTLED, len(watch.memory) - 1) :],
    }


class Watch(threading.Thread):
    """One more client, which times each answer, and the server's memory once a second."""

    def __init__(self, server: Running, question: Question) -> None:
        super().__init__(daemon=True)
        self._server, self._question = server, question
        self.asked: list[tuple[int, float]] = []
        self.memory: list[float] = []
        self.ending = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=30)
        begun = time.perf_counter()
        while not self.ending.wait(PAUSE):
            started = time.perf_counter()
            connection.request("POST", "/predict", self._question.body, dict(self._question.headers))
            answer = connection.getresponse()
            answer.read()
            now = time.perf_counter()
            self.asked.append((answer.status, (now - started) * 1000))
            if now - begun > len(self.memory):
                self.memory.append(self._server.memory())
        connection.close()
