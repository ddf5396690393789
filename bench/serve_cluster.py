"""The service in replicas of Ray Serve beside the same as one plain process, in turn, a client for each replica.

make bench-serve-cluster                    3 rounds, a quarter of an hour, into bench/RESULTS.md (needs wrk)
make bench-serve-cluster ARGS="--rounds 1 --seconds 2 --model FILE"

All of it shares this machine's cores: the clients, Ray Serve's proxy, and the replicas.
"""

import argparse
import os
import statistics
import sys
from functools import partial
from pathlib import Path

import numpy as np
from results import keep, machine, measurements
from servers import Load, Question, find_wrk, load, running

from fmnist.registry import CHAMPION

WARM = 15
"""Seconds before anything is measured: a second replica may still be starting when the first one answers."""
MARK = "<!-- serving on a cluster -->"
PLAIN = [sys.executable, "-P", "-m", "fmnist", "serve", "--port", "PORT"]
CLIENTS = (1, 2, 16)
IMAGE = Question(np.arange(784, dtype=np.uint8).tobytes(), {"Content-Type": "application/octet-stream"})
MANY = Question(IMAGE.body * 256, IMAGE.headers, 256)


def sources() -> list[Path]:
    """What the measurements depend on."""
    package = Path(__file__).parents[1] / "fmnist"
    return [*package.glob("serve/**/*.py"), package / "cluster" / "serving.py", package.parent / "constraints.txt"]


def contenders(model: str) -> dict[str, list[str]]:
    clusters = {f"Ray Serve, {count} replica{'s' * (count > 1)}": str(count) for count in (1, 2)}
    plain = [*PLAIN, "--model", model]
    return {"`fmnist serve`": plain} | {
        name: [*plain, "--cluster", "--replicas", count] for name, count in clusters.items()
    }


def measure(command: list[str], seconds: float) -> dict[str, Load]:
    """What each question gave, by its name."""
    found = {}
    with running(command, "/predict", IMAGE) as server:
        load(server.port, "/predict", IMAGE, connections=max(CLIENTS), seconds=WARM)
        for count in CLIENTS:
            found[f"{count}"] = load(server.port, "/predict", IMAGE, connections=count, seconds=seconds)
        found["many"] = load(server.port, "/predict", MANY, connections=2, seconds=seconds)
        found["start"] = Load(server.started, server.memory(), 0, {})
    for name, got in found.items():
        if got.statuses:
            raise SystemExit(f"{' '.join(command)}: {name}: not always answered: {got.statuses}")
    return found


def section(found: dict[str, list[dict[str, Load]]], seconds: float) -> str:
    rounds = len(next(iter(found.values())))
    head = [f"{count} client{'s' * (count > 1)}" for count in CLIENTS]
    lines = [
        "## The service in replicas",
        "",
        f"Requests a second of one image each (raw), p50 in milliseconds; {machine()}; n = {rounds} rounds of "
        f"{seconds:g} s in turn, medians and ranges. Clients, proxy and replicas share the cores. "
        "`make bench-serve-cluster`",
        "",
        f"| | {' | '.join(head)} | 256 images a request, 2 clients: images/s | first answer after | memory |",
        f"|---|{'---|' * len(head)}---|---|---|",
    ]
    for name, each in found.items():
        cells = [_cell([one[str(count)] for one in each]) for count in CLIENTS]
        images = [one["many"].rate * MANY.images for one in each]
        starts, memory = ([getattr(one["start"], part) for one in each] for part in ("rate", "p50"))
        cells += [f"{statistics.median(images):,.0f} ({min(images):,.0f}-{max(images):,.0f})"]
        cells += [f"{statistics.median(starts):.1f} s", f"{statistics.median(memory):,.0f} MB"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(loads: list[Load]) -> str:
    rates, waits = [one.rate for one in loads], [one.p50 for one in loads]
    return (
        f"{statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f}), p50 {statistics.median(waits):.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--model", default=CHAMPION, help="as fmnist serve takes it")
    arguments = parser.parse_args()
    find_wrk()
    os.environ.pop("RAY_ADDRESS", None)  # on this machine
    several = contenders(arguments.model)
    found: dict[str, list[dict[str, Load]]] = {name: [] for name in several}
    measured = measurements(f"serve-cluster-{arguments.seconds:g}", sources(), arguments.fresh)
    for number in range(arguments.rounds):
        for name, command in several.items():
            got = measured.get(
                f"{name}, {arguments.model}, round {number + 1}", partial(measure, command, arguments.seconds)
            )
            found[name].append({kind: Load(*values) for kind, values in got.items()})
    text = section(found, arguments.seconds)
    print(text)
    if arguments.rounds >= 3:
        keep(MARK, text)


if __name__ == "__main__":
    main()
