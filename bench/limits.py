"""How ten thousand runs are borne: MLflow's first page, the commands that look at all runs, `gc`, TensorBoard.

make bench-limits          half an hour, into bench/RESULTS.md
make bench-limits ARGS="--runs 300 --deleted 60"
"""

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests
from crowd import delete, environment, multiply, train_one
from results import keep, machine

MARK = "<!-- limits -->"
ROUNDS = 3
WAIT = 600  # seconds
PATIENT = 120  # seconds for TensorBoard
VERBS = {"runs": "fmnist runs", "models": "fmnist models", "doctor": "fmnist doctor", "gc": "fmnist gc (looks)"}
PAGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "MLflow: the page itself": ("GET", "/", {}),
    "MLflow: first 100 runs, newest first": (
        "POST",
        "/ajax-api/2.0/mlflow/runs/search",
        {"json": {"experiment_ids": ["1"], "max_results": 100, "order_by": ["attributes.start_time DESC"]}},
    ),
    "MLflow: first 100 versions": (
        "GET",
        "/ajax-api/2.0/mlflow/model-versions/search",
        {"params": {"filter": "name='fashion-mnist'", "max_results": 100}},
    ),
}
"""What a browser asks for its first page of runs, and for the versions of the model."""
Times = dict[str, list[float]]


def verb(home: Path, *arguments: str) -> tuple[float, float]:
    """What a command takes: (processor seconds, seconds by the clock)."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "fmnist", *arguments]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, cwd=home, check=False)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode and arguments[0] != "doctor":  # whether all is well is not what is measured
        raise SystemExit(f"{arguments}: {done.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, seconds


@contextmanager
def server(*command: str) -> Iterator[tuple[str, Callable[[], tuple[float, float]]]]:
    """A server on a port of its own: (its address, what gives (its processor seconds, its memory in MB))."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    whole = [sys.executable, "-m", *command, "--port", str(port)]
    process = psutil.Popen(whole, env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, **quiet)

    def used() -> tuple[float, float]:
        all_of_it = (process, *process.children(recursive=True))
        times = [each.cpu_times() for each in all_of_it]
        return sum(t.user + t.system for t in times), sum(each.memory_info().rss for each in all_of_it) / 1e6

    try:
        yield f"http://127.0.0.1:{port}", used
    finally:
        for each in (*process.children(recursive=True), process):
            each.terminate()
        process.wait(30)


def until(condition: Callable[[], Any], seconds: float) -> float | None:
    """Seconds until it holds; None where it never does."""
    started = time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        try:
            if condition():
                return time.perf_counter() - started
        except requests.RequestException:
            pass
        time.sleep(min(1, 0.2 + spent / 50))
    return None


def pages(home: Path) -> Times:
    """What MLflow spends on what a browser asks of it."""
    place = ["--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}", "--workers", "1"]
    with server("mlflow", "server", *place) as (address, used):
        until(lambda: requests.get(f"{address}/health", timeout=5).ok, WAIT)
        return asked(address, lambda: used()[0])


def asked(address: str, clock: Callable[[], float]) -> Times:
    """Each of MLflow's first pages, ROUNDS times, after one to warm it."""
    times: Times = {}
    for _ in range(ROUNDS + 1):
        for name, (method, path, given) in PAGES.items():
            started = clock()
            requests.request(method, address + path, timeout=WAIT, **given).raise_for_status()
            times.setdefault(name, []).append(clock() - started)
    return {name: values[1:] for name, values in times.items()}


def tensorboard(home: Path, count: int) -> tuple[float | None, float]:
    """(seconds until it shows all runs, its memory in MB then)."""
    options = ["--logdir", str(home / "tensorboard"), "--samples_per_plugin", "images=1000"]
    with server("tensorboard.main", *options) as (address, used):
        shows_all = lambda: len(requests.get(f"{address}/data/runs", timeout=60).json()) >= count  # noqa: E731
        return until(shows_all, PATIENT), used()[1]


def look(home: Path) -> Times:
    """Processor seconds of all that looks at all runs; of doctor, which has a limit, seconds by the clock too."""
    times: Times = {}
    for command, name in VERBS.items():
        took = [verb(home, command) for _ in range(1 if command == "gc" else ROUNDS)]
        times[name] = [processor for processor, _ in took]
        if command == "doctor":
            times[f"{name}, by the clock"] = [clock for _, clock in took]
    return pages(home) | times


def table(columns: dict[str, Times]) -> list[str]:
    """A row for each thing that was timed: median and range."""
    rows = []
    for name in next(iter(columns.values())):
        cells = (f"{statistics.median(t[name]):.2f} ({min(t[name]):.2f}-{max(t[name]):.2f})" for t in columns.values())
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return [f"| | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|", *rows]


def section(runs: int, deleted: int, columns: dict[str, Times], facts: list[str]) -> str:
    told = f"Each run as a real one of 8 epochs leaves it ({deleted:,} of them deleted in MLflow), SQLite"
    return "\n".join(
        [
            f"## {runs:,} runs",
            "",
            f"{told}; {machine()}, shared with other work, so processor seconds; median and range of n = {ROUNDS}, "
            "of gc 1. `make bench-limits`",
            "",
            *table(columns),
            "",
            *facts,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--deleted", type=int, default=2_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        home = Path(folder)
        original = train_one(home)
        columns = {"1 run": look(home)}
        print(json.dumps(columns["1 run"]), flush=True)
        started = time.perf_counter()
        crowd = multiply(home, original, arguments.runs - 1)
        delete(home, original, crowd[: arguments.deleted])
        print(f"filled in {time.perf_counter() - started:.0f} s", flush=True)
        columns[f"{arguments.runs:,} runs"] = look(home)
        print(json.dumps(columns[f"{arguments.runs:,} runs"]), flush=True)
        shown, memory = tensorboard(home, arguments.runs)
        size = (home / "mlflow.db").stat().st_size / 1e6
        freed, _ = verb(home, "gc", "--yes")
        columns[f"{arguments.runs - arguments.deleted:,}, after gc"] = look(home)
    board = f"all runs after {shown:.0f} s" if shown else f"not all runs after {PATIENT} s"
    facts = [
        f"`fmnist gc --yes` took {freed:.0f} processor seconds for the {arguments.deleted:,}. The database: "
        f"{size:,.0f} MB. TensorBoard, its pictures included: {board}, {memory:,.0f} MB of memory."
    ]
    text = section(arguments.runs, arguments.deleted, columns, facts)
    print(text)
    if arguments.runs >= 10_000:
        keep(MARK, text)


if __name__ == "__main__":
    main()
