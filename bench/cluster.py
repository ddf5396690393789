"""Two workers of one thread on Ray against one process of two threads, in turn: speed, accuracy, and the start.

make bench-cluster                     5 seeds of each, into bench/RESULTS.md; goes on where it was interrupted
make bench-cluster ARGS="--rounds 1"   fewer
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from results import Measurements, keep, machine, measurements, told

from fmnist import load_data

ROOT = Path(__file__).parents[1]
ONE, TWO = "one process, 2 threads", "2 workers on Ray, 1 thread each"
OPTIONS = {ONE: ["--workers", "1"], TWO: ["--workers", "2"]}


def sources() -> list[Path]:
    """What the measurements depend on."""
    folders = ROOT / "fmnist" / "engine", ROOT / "fmnist" / "cluster"
    return [Path(__file__), ROOT / "constraints.txt", *(file for folder in folders for file in folder.glob("*.py"))]


def train(options: list[str], seed: int) -> dict[str, float]:
    """A whole training in a process of its own. `around`: seconds before its first step and after its last epoch."""
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "data").symlink_to(ROOT / "var" / "data")
        settings = {"FMNIST_HOME": home, "FMNIST_TRACKING": "no", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", "fmnist", "train", "--seed", str(seed), "--json", *options]
        started = time.perf_counter()
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=True)
        wall = time.perf_counter() - started
    result: dict[str, Any] = json.loads(done.stdout)
    return {
        "rate": result["images_per_second"],
        "around": wall - result["seconds"],
        "accuracy": result["val"]["accuracy"],
    }


def table(results: dict[str, list[dict[str, float]]]) -> list[str]:
    ratios = [two["rate"] / one["rate"] for one, two in zip(results[ONE], results[TWO], strict=True)]
    costs = [two["around"] - one["around"] for one, two in zip(results[ONE], results[TWO], strict=True)]
    lines = [
        "## Two workers on Ray, on one machine",
        "",
        f"The recipe `fast`, whole trainings; {machine()}; n = {len(ratios)} seeds of each, in turn, medians and "
        "ranges. `make bench-cluster`",
        "",
        "| | images/s in training steps | seconds before and after the epochs | validation accuracy |",
        "|---|---|---|---|",
    ]
    for label, rounds in results.items():
        rates, around = [each["rate"] for each in rounds], [each["around"] for each in rounds]
        accuracies = told([each["accuracy"] for each in rounds], ".2%")
        lines.append(f"| {label} | {told(rates, ',.0f')} | {told(around, '.1f')} | {accuracies} |")
    return [
        *lines,
        "",
        f"Two workers do {told(ratios, '.2f')} times what one process does; to start and to end them takes "
        f"{told(costs, '.1f')} s more.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="trainings of each kind")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    arguments = parser.parse_args()
    load_data()  # cached for all
    measured: Measurements = measurements("cluster", sources(), arguments.fresh)
    results: dict[str, list[dict[str, float]]] = {label: [] for label in OPTIONS}
    for number in range(arguments.rounds):
        for label, options in OPTIONS.items():
            results[label].append(measured.get(f"{label}, round {number + 1}", partial(train, options, number)))
    text = "\n".join(table(results))
    print(text)
    keep("<!-- cluster -->", text)


if __name__ == "__main__":
    main()
