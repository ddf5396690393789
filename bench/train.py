"""Training speed: ours against what people would use instead, in turn, in processes of their own.

make bench-train                    n = 5 of each, into bench/RESULTS.md and docs/images
make bench-train ARGS="--quick"     one short round, nothing kept
make bench-train ARGS="--fresh"     forget what an interrupted run had measured

First each way in which the original can be run in Keras, then the quickest one's batch sizes, once: the best of them is
the peer. What is measured is kept at once in var/bench, so that an interrupted run goes on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from results import STORE, Measurements, arithmetic, keep, machine, measurements, told

from fmnist import load_data
from fmnist.plots import LINES, as_png

HERE = Path(__file__).parent
ROOT = HERE.parent
PICTURE = ROOT / "docs" / "images" / "training_speed.png"
KERAS = [str(HERE / "peers" / ".venv" / "bin" / "python"), str(HERE / "peers" / "keras_train.py")]
TORCH = [sys.executable, str(HERE / "peers" / "torch_train.py")]
OURS = [sys.executable, str(HERE / "ours_train.py")]
WAYS = {"fp32": "as it is", "bf16": "mixed_bfloat16", "data": "fed by tf.data"}
BATCHES = 128, 256, 512
IMAGES, EPOCHS, ROUNDS = 12_800, 4, 5
SAME_EPOCHS, SAME_ROUNDS = 5, 3


NO_GPU = MappingProxyType({"CUDA_VISIBLE_DEVICES": ""})


def sources() -> list[Path]:
    """What the measurements depend on."""
    found = [*(ROOT / "fmnist" / "engine").glob("*.py"), *HERE.glob("*.py"), *HERE.glob("peers/*.py")]
    return [*found, ROOT / "fmnist" / "layers.py", ROOT / "constraints.txt", HERE / "peers" / "requirements-keras.txt"]


def run(command: list[str], settings: Mapping[str, str] = NO_GPU) -> dict[str, Any]:
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | settings
    done = subprocess.run(command, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"rate": statistics.median(result["rates"][1:]), **result}  # the first epoch warms up


def write_arrays() -> tuple[str, str]:
    """Files with some training images, and with all of them and the validation images."""
    data = load_data()
    some, whole = STORE / "some.npz", STORE / "all.npz"
    chosen = np.random.default_rng(0).permutation(len(data.train))[:IMAGES]
    STORE.mkdir(parents=True, exist_ok=True)
    np.savez(some, images=data.train.images[chosen], labels=data.train.labels[chosen])
    images, labels = data.validation.images, data.validation.labels
    np.savez(
        whole, images=data.train.images, labels=data.train.labels, validation_images=images, validation_labels=labels
    )
    return str(some), str(whole)


def contenders(measured: Measurements, arrays: str, batches: tuple[int, ...]) -> dict[str, list[str]]:
    """Label -> command: ours at its recipe's batch size, the peers as they are quickest."""

    def rate(label: str, command: list[str]) -> float:
        return float(measured.get(f"{label}, once", partial(run, command))["rate"])

    def quickest(kind: str, script: list[str], ways: dict[str, str]) -> tuple[str, list[str]]:
        """Of the ways at batch 256, and then of that one's other batch sizes."""
        tried = {way: rate(f"{kind}, {name}, batch 256", command(script, 256, way)) for way, name in ways.items()}
        way = max(tried, key=lambda way: tried[way])
        rates = {b: rate(f"{kind}, {ways[way]}, batch {b}", command(script, b, way)) for b in batches}
        batch = max(rates, key=lambda batch: rates[batch])
        return f"{kind}, {ways[way]}, batch {batch}", command(script, batch, way)

    def command(script: list[str], batch: int, way: str) -> list[str]:
        return [*script, arrays, str(batch), str(EPOCHS), way]

    return dict(
        [
            ("fmnist, batch 256", command(OURS, 256, "fast")),
            ("fmnist, engine plain, batch 256", command(OURS, 256, "plain")),
            quickest("Keras + TensorFlow", KERAS, WAYS),
            quickest("PyTorch", TORCH, {"": "as tutorials write it"}),
        ]
    )


def rows(rates: dict[str, list[float]], versions: dict[str, str]) -> list[str]:
    """Markdown: a line for each contender; ours is the first."""
    ours = next(iter(rates))
    lines = ["| | images/s, median | range | ours against it, round by round |", "|---|---|---|---|"]
    for label, values in rates.items():
        ratios = [own / other for own, other in zip(rates[ours], values, strict=True)]
        against = "" if label == ours else told(ratios, ".2f")
        middle = f"{statistics.median(values):,.0f}"
        lines.append(f"| {label} ({versions[label]}) | {middle} | {min(values):,.0f}-{max(values):,.0f} | {against} |")
    return lines


def table(rates: dict[str, list[float]], versions: dict[str, str]) -> list[str]:
    number = len(next(iter(rates.values())))
    return [
        f"## Training speed ({arithmetic()})",
        "",
        f"The original's network at its dropout, Adam; {machine()}, for all; n = {number} processes each, "
        f"in turn, each the median of {EPOCHS - 1} epochs of {IMAGES:,} images after one to warm up; a peer is as "
        f"it was quickest, at the quickest of the batch sizes {', '.join(map(str, BATCHES))}. `make bench-train`",
        "",
        *rows(rates, versions),
    ]


def agreement(accuracies: dict[str, list[float]]) -> str:
    means = {label: statistics.mean(values) for label, values in accuracies.items()}
    parts = [f"{label} {means[label]:.2%} ({min(v):.2%} to {max(v):.2%})" for label, v in accuracies.items()]
    ours, peer = means.values()
    return (
        f"The same recipe learns the same: validation accuracy after {SAME_EPOCHS} epochs of all 48,000 images, "
        f"batch 256, mean of n = {SAME_ROUNDS}: {', '.join(parts)}; ours against Keras {100 * (ours - peer):+.2f}."
    )


def draw(rates: dict[str, list[float]]) -> None:
    """A bar for each median, a point for each process."""
    figure = Figure(figsize=(10, 3.4), dpi=100, layout="constrained")
    axes = figure.subplots()
    for place, (values, colour) in enumerate(zip(rates.values(), LINES, strict=False)):
        axes.barh(place, statistics.median(values), color=colour, height=0.6)
        axes.plot(values, [place] * len(values), "o", color="black", markersize=4, alpha=0.6)
        axes.text(max(values), place, f"  {statistics.median(values):,.0f}", va="center", fontsize=13)
    axes.set_yticks(range(len(rates)), [label.replace(", ", "\n", 1) for label in rates], fontsize=12)
    axes.invert_yaxis()
    axes.set_xlim(0, max(map(max, rates.values())) * 1.12)
    axes.set_xlabel("training images a second", fontsize=13)
    axes.set_title(f"The original's CNN, {os.cpu_count()} cores, {arithmetic()}", fontsize=15)
    axes.spines[["top", "right"]].set_visible(False)
    PICTURE.write_bytes(as_png(figure))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one round at batch 256, nothing kept")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    arguments = parser.parse_args()
    some, whole = write_arrays()
    measured = Measurements(None) if arguments.quick else measurements("train", sources(), arguments.fresh)
    rounds = 1 if arguments.quick else ROUNDS
    commands = contenders(measured, some, (256,) if arguments.quick else BATCHES)
    rates: dict[str, list[float]] = {label: [] for label in commands}
    versions = {}
    for number in range(rounds):
        for label, command in commands.items():
            result = measured.get(f"{label}, round {number + 1}", partial(run, command))
            rates[label].append(result["rate"])
            versions[label] = result["versions"]
    if arguments.quick:
        return
    accuracies: dict[str, list[float]] = {"fmnist": [], "Keras": []}
    for number in range(SAME_ROUNDS):
        for label, script in zip(accuracies, ([*OURS, whole, "fast"], [*KERAS, whole, "fp32"]), strict=True):
            command = [*script[:-1], "256", str(SAME_EPOCHS), script[-1]]
            result = measured.get(f"{label}, {SAME_EPOCHS} epochs of all, {number + 1}", partial(run, command))
            accuracies[label].append(result["val_accuracy"])
    text = "\n".join([*table(rates, versions), "", agreement(accuracies)])
    print(text)
    keep(f"<!-- throughput, {arithmetic()} -->", text)
    draw(rates)


if __name__ == "__main__":
    main()
