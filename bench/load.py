"""How much one MLflow takes: runs a minute and points a second, by clients that wait for nothing but its answers.

make bench-load                       an MLflow of its own on SQLite
make bench-load ARGS="--platform"     the platform's, on Postgres: of a copy of the checkout, which goes afterwards

Each is one worker of MLflow's. The clients run on the same machine, in processes of their own.
"""

import argparse
import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import requests
from containers import Copy
from limits import server, until
from results import keep, machine, told

API = "/api/2.0/mlflow/"
CLIENTS = 1, 4, 16
SECONDS = 20.0
EPOCHS, SCORES, PARAMS = 8, 12, 22
"""Of a run of the recipe `fast`: log-batch once an epoch, with so many scores."""
WAIT = 120  # seconds
MOST = 1000
"""Points that MLflow takes in one request."""


class Client:
    """What sends records to MLflow over HTTP, as the package's own shipper does."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri, self.experiment, self.session = uri, experiment, requests.Session()
        self.session.trust_env = False

    def post(self, endpoint: str, **values: Any) -> Any:
        answer = self.session.post(f"{self.uri}{API}{endpoint}", json=values, timeout=120)
        answer.raise_for_status()
        return answer.json()

    def create(self) -> str:
        made = self.post("runs/create", experiment_id=self.experiment, start_time=int(time.time() * 1000))
        return str(made["run"]["info"]["run_id"])

    def points(self, run: str, count: int, step: int) -> int:
        """Send `count` points in one request."""
        now = int(time.time() * 1000)
        metrics = [
            {"key": f"score_{n % SCORES}", "value": n / 7, "timestamp": now, "step": step + n} for n in range(count)
        ]
        self.post("runs/log-batch", run_id=run, metrics=metrics)
        return count

    def run(self) -> int:
        """Send a whole run, without its files."""
        run = self.create()
        params = [{"key": f"param_{n}", "value": str(n)} for n in range(PARAMS)]
        self.post("runs/log-batch", run_id=run, params=params)
        for epoch in range(EPOCHS):
            self.points(run, SCORES, epoch * SCORES)
        self.post("runs/update", run_id=run, status="FINISHED", end_time=int(time.time() * 1000))
        return 1


def client(uri: str, experiment: str, kind: str, together: Any, results: Any) -> None:
    """Do it again and again for SECONDS; what came of it: (how many, seconds of each time), or an error."""
    mine = Client(uri, experiment)
    try:
        run, done, times = mine.create(), 0, []
        together.wait(WAIT)  # all of them are there
        end = time.perf_counter() + SECONDS
        while (started := time.perf_counter()) < end:
            done += mine.run() if kind == "runs" else mine.points(run, MOST, done)
            times.append(time.perf_counter() - started)
        results.put((done / (time.perf_counter() - end + SECONDS), times))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        results.put(repr(error))
        together.abort()


def load(uri: str, experiment: str, kind: str, clients: int) -> tuple[float, float]:
    """(how many a second by all clients, the median seconds of one time)."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    given = uri, experiment, kind, context.Barrier(clients), results
    started = [context.Process(target=client, args=given) for _ in range(clients)]
    for process in started:
        process.start()
    found = [results.get(timeout=10 * SECONDS + WAIT) for _ in started]
    for process in started:
        process.join()
    if failed := [result for result in found if isinstance(result, str)]:
        raise SystemExit(next((told for told in failed if "BrokenBarrier" not in told), failed[0]))
    return sum(rate for rate, _ in found), statistics.median(seconds for _, times in found for seconds in times)


def report(uri: str, store: str, command: str, rounds: int) -> str:
    asked, name = Client(uri, ""), f"load-{time.time_ns()}"
    experiment = str(asked.post("experiments/create", name=name)["experiment_id"])
    lines = [
        f"## What one MLflow takes ({store})",
        "",
        f"Clients send whole runs without files ({EPOCHS} epochs of {SCORES} scores), or {MOST:,} points a time, one "
        f"after the other, to one worker of MLflow's on the same machine: {machine()}; {SECONDS:.0f} s each; "
        f"n = {rounds}, medians and ranges. `{command}`",
        "",
        "| clients | runs a minute | seconds a run | points a second | seconds a request |",
        "|---|---|---|---|---|",
    ]
    try:
        for clients in CLIENTS:
            runs = [load(uri, experiment, "runs", clients) for _ in range(rounds)]
            points = [load(uri, experiment, "points", clients) for _ in range(rounds)]
            columns = [
                told([60 * rate for rate, _ in runs], ",.0f"),
                told([seconds for _, seconds in runs], ".2f"),
                told([rate for rate, _ in points], ",.0f"),
                told([seconds for _, seconds in points], ".2f"),
            ]
            lines.append(f"| {clients} | {' | '.join(columns)} |")
            print(lines[-1], flush=True)
    finally:
        asked.post("experiments/delete", experiment_id=experiment)
    return "\n".join(lines)


@contextlib.contextmanager
def own_server() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as home:
        store = [
            "--backend-store-uri",
            f"sqlite:///{home}/mlflow.db",
            "--default-artifact-root",
            home,
            "--workers",
            "1",
        ]
        with server("mlflow", "server", *store) as (uri, _):
            if until(lambda: requests.get(f"{uri}/health", timeout=5).ok, WAIT) is None:
                raise SystemExit("MLflow does not start")
            yield uri


@contextlib.contextmanager
def platforms_server() -> Iterator[str]:
    with Copy.built() as copy:
        copy.start()
        yield f"http://localhost:{copy.environment['FMNIST_MLFLOW_PORT']}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--platform", action="store_true", help="the platform's MLflow, not one on SQLite")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    store = "the platform, Postgres" if arguments.platform else "SQLite"
    with platforms_server() if arguments.platform else own_server() as uri:
        command = 'make bench-load ARGS="--platform"' if arguments.platform else "make bench-load"
        text = report(uri, store, command, arguments.rounds)
    print(text)
    keep(f"<!-- load, {store.rpartition(' ')[2]} -->", text)


if __name__ == "__main__":
    main()
