"""Two workers of one thread on Ray against one process of two threads, in turn: speed, accuracy, and the start.

make bench-cluster                              5 seeds of each, into bench/RESULTS.md; goes on where it was interrupted
make bench-cluster ARGS="--rounds 1"            fewer
make bench-cluster ARGS="--nodes --rounds 3"    the workers on two nodes of one core: the platform's containers
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from containers import Copy
from results import Measurements, keep, machine, measurements, told

from fmnist import load_data

ROOT = Path(__file__).parents[1]
ONE, TWO = "one process, 2 threads", "2 workers on Ray, 1 thread each"
NODES = "2 workers on Ray, on two nodes of one core"
OPTIONS = {ONE: ["--workers", "1"], TWO: ["--workers", "2"]}
ON_NODES = {ONE: OPTIONS[ONE], NODES: OPTIONS[TWO]}
EPOCHS = 3
"""Of those on nodes, which are for the speed alone."""
Trains = Callable[[list[str]], str]


def sources() -> list[Path]:
    """What the measurements depend on."""
    folders = ROOT / "fmnist" / "engine", ROOT / "fmnist" / "cluster"
    return [Path(__file__), ROOT / "constraints.txt", *(file for folder in folders for file in folder.glob("*.py"))]


def here(options: list[str]) -> str:
    """What a training in a workspace of its own prints."""
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "data").symlink_to(ROOT / "var" / "data")
        settings = {"FMNIST_HOME": home, "FMNIST_TRACKING": "no", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", "fmnist", "train", *options]
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=True)
    return done.stdout


def in_notebook(copy: Copy, options: list[str]) -> str:
    """What a training prints in the platform's notebook, whose Ray has two nodes."""
    settings = "FMNIST_TRACKING=no", "OMP_NUM_THREADS=2"
    return copy.inside("notebook", "env", *settings, "fmnist", "train", "--epochs", str(EPOCHS), *options)


def train(trains: Trains, options: list[str], seed: int) -> dict[str, float]:
    """A whole training in a process of its own. `around`: seconds before its first step and after its last epoch."""
    started = time.perf_counter()
    result: dict[str, Any] = json.loads(trains(["--seed", str(seed), "--json", *options]))
    wall = time.perf_counter() - started
    return {
        "rate": result["images_per_second"],
        "around": wall - result["seconds"],
        "accuracy": result["val"]["accuracy"],
    }


def table(title: str, what: str, results: dict[str, list[dict[str, float]]]) -> list[str]:
    pairs = list(zip(*results.values(), strict=True))
    ratios = [two["rate"] / one["rate"] for one, two in pairs]
    costs = [two["around"] - one["around"] for one, two in pairs]
    lines = [
        f"## Two workers on Ray, {title}",
        "",
        f"The recipe `fast`, {what}; {machine()}; n = {len(ratios)} seeds of each, in turn, medians and ranges.",
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


def on_nodes(rounds: int) -> str:
    """Of a copy of the platform with Ray's head and one worker, which goes afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
    results: dict[str, list[dict[str, float]]] = {label: [] for label in ON_NODES}
    with Copy.built(COMPOSE_PROFILES="cluster", RAY_DASHBOARD_PORT=port) as copy:
        copy.start()
        shutil.copytree(ROOT / "var" / "data", copy.folder / "var" / "data", dirs_exist_ok=True)
        for number in range(rounds):
            for label, options in ON_NODES.items():
                results[label].append(train(partial(in_notebook, copy), options, number))
                print(label, results[label][-1], flush=True)
    what = f'{EPOCHS} epochs in the platform\'s notebook. `make bench-cluster ARGS="--nodes"`'
    return "\n".join(table("on two nodes in containers of one machine", what, results))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="trainings of each kind")
    parser.add_argument("--nodes", action="store_true", help="on two nodes, in containers")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    arguments = parser.parse_args()
    load_data()  # cached for all
    if arguments.nodes:
        text = on_nodes(arguments.rounds)
        print(text)
        keep("<!-- cluster, nodes -->", text)
        return
    measured: Measurements = measurements("cluster", sources(), arguments.fresh)
    results: dict[str, list[dict[str, float]]] = {label: [] for label in OPTIONS}
    for number in range(arguments.rounds):
        for label, options in OPTIONS.items():
            results[label].append(measured.get(f"{label}, round {number + 1}", partial(train, here, options, number)))
    text = "\n".join(table("on one machine", "whole trainings. `make bench-cluster`", results))
    print(text)
    keep("<!-- cluster -->", text)


if __name__ == "__main__":
    main()
