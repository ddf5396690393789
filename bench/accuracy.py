"""Time to accuracy: whole trainings of ours beside the original's whole training in Keras, in turn.

make bench-accuracy                     3 trainings of the original, all of ours: three and a half hours, in sittings
make bench-accuracy ARGS="--rounds 1"   a third of it

A* is what the original's recipe ends with, as it is run here. Ours is `fmnist train` in processes of their own, which
track as little as the peer. The recipe, its 8 epochs too, was chosen by validation accuracy alone; the other lengths
are points of a curve, and the shortest that reaches A* is found by looking. Nothing is averaged at test time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from results import STORE, arithmetic, keep, machine, measurements

from fmnist import load_data
from fmnist.plots import LINES, as_png
from fmnist.recipe import TrainConfig

HERE = Path(__file__).parent
ROOT = HERE.parent
PICTURE = ROOT / "docs" / "images" / "time_to_accuracy.png"
KERAS = [str(HERE / "peers" / ".venv" / "bin" / "python"), str(HERE / "peers" / "keras_original.py")]
SITTINGS = HERE / "sittings"
"""What was measured so far: hours of work, so it is kept with the sources."""
TICKS = 30, 60, 120, 300, 600, 1200, 2400  # seconds
ROUNDS = 3
LENGTHS = {3: 0.2, 5: 0.2, 6: 0.2, 8: 0.2, 20: 0.4, 40: 0.5}
"""Epochs of the recipe `fast`, and its dropout then: a training of each length is a point of our curve."""
OURS: dict[str, tuple[int, dict[str, Any]]] = {
    f"fast, {epochs} epochs, dropout {dropout}": (
        10 if epochs in (5, 6, 8) else ROUNDS,
        {"epochs": epochs, "dropout": dropout},
    )
    for epochs, dropout in LENGTHS.items()
} | {"fast in float32": (5, {"precision": "fp32"}), "fast, labels not smoothed": (5, {"label_smoothing": 0})}
"""Name -> how many seeds, and in what it differs from `fast`. Ten where a length reaches A* or is the recipe's own."""


def sources() -> list[Path]:
    """What the measurements depend on."""
    found = [*(ROOT / "fmnist" / "engine").glob("*.py"), *HERE.glob("peers/keras_*.py"), ROOT / "fmnist" / "recipe.py"]
    return [*found, ROOT / "fmnist" / "layers.py", ROOT / "constraints.txt", HERE / "peers" / "requirements-keras.txt"]


def write_arrays() -> str:
    """A file with all images, in the split that everybody trains on."""
    data, path = load_data(), STORE / "splits.npz"
    STORE.mkdir(parents=True, exist_ok=True)
    splits = {"": data.train, "validation_": data.validation, "test_": data.test}
    arrays = {f"{name}{part}": getattr(split, part) for name, split in splits.items() for part in ("images", "labels")}
    np.savez(path, **arrays)
    return str(path)


def original(arrays: str, seed: int) -> dict[str, Any]:
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*KERAS, arrays, str(seed)], env=quiet, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def ours(*arguments: str, look: Callable[[Path], dict[str, Any]] = lambda home: {}) -> dict[str, Any]:
    """What `fmnist train` says of a training in a workspace of its own, and what `look` finds there."""
    command = [sys.executable, "-m", "fmnist", "train", "--json", *arguments]
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "data").symlink_to(ROOT / "var" / "data")
        started = time.perf_counter()
        done = subprocess.run(
            command, env=os.environ | {"FMNIST_HOME": home, "FMNIST_TRACKING": "no"}, stdout=subprocess.PIPE, check=True
        )
        whole = time.perf_counter() - started
        seen = look(Path(home))
    said = json.loads(done.stdout)
    kept = {"seconds": said["seconds"], "epochs": said["epochs"], "rate": said["images_per_second"], "whole": whole}
    return kept | seen | {"val": said["val"]["accuracy"], "test": said["test"]["accuracy"]}


def first_reached(peer: dict[str, Any], accuracy: float) -> float:
    """Seconds after which the test images first give it; where they never do, the whole training's."""
    return next((seconds for seconds, test in peer["curve"] if test >= accuracy), peer["seconds"])


def spread(values: list[float], form: str) -> str:
    return f"{statistics.mean(values):{form}} ({min(values):{form}} to {max(values):{form}}, n = {len(values)})"


def report(found: dict[str, list[dict[str, Any]]]) -> str:
    peers = found["original, Keras"]
    goal = statistics.mean(peer["test"] for peer in peers)
    whole = [peer["seconds"] for peer in peers]
    first = [first_reached(peer, goal) for peer in peers]
    lines = [
        f"## Time to accuracy ({arithmetic()})",
        "",
        f"Whole trainings on the 48,000 images; seconds from the first step to the end, validation included; "
        f"{machine()}, for all; in turn. {peers[0]['versions']}. `make bench-accuracy`",
        "",
        f"A*, the test accuracy with which the original ends: {spread([peer['test'] for peer in peers], '.2%')}.",
        "",
        "| | seconds | validation accuracy | test accuracy | A* in less time by: than the whole, than until then |",
        "|---|---|---|---|---|",
        f"| the original in Keras, whole | {spread(whole, ',.0f')} | {spread([peer['val'] for peer in peers], '.2%')} "
        f"| {goal:.2%} | |",
        f"| the original in Keras, until an epoch first gives A* | {spread(first, ',.0f')} | | | |",
    ]
    for label, runs in found.items():
        if label == "original, Keras":
            continue
        seconds, vals, tests = ([run[name] for run in runs] for name in ("seconds", "val", "test"))
        by = " and ".join(f"{statistics.mean(theirs) / statistics.mean(seconds):.1f}" for theirs in (whole, first))
        reached = by if statistics.mean(tests) >= goal else "not reached"
        lines.append(
            f"| {label} | {spread(seconds, ',.1f')} | {spread(vals, '.2%')} | {spread(tests, '.2%')} | {reached} |"
        )
    return "\n".join(lines)


def measure(rounds: int, fresh: bool) -> dict[str, list[dict[str, Any]]]:
    """Label -> what each training came to. A round is one training of the original and its share of ours."""
    arrays, measured = write_arrays(), measurements("accuracy", sources(), fresh, SITTINGS)
    found: dict[str, list[dict[str, Any]]] = {}

    def add(label: str, seed: int, call: Callable[[], dict[str, Any]]) -> None:
        found.setdefault(label, []).append(measured.get(f"{label}, seed {seed}", call))

    for number in range(rounds):
        add("original, Keras", number, partial(original, arrays, number))
        add("original, our engine", number, partial(ours, "--recipe", "original", "--seed", str(number)))
        for place, (label, (seeds, changes)) in enumerate(OURS.items()):
            recipe = STORE / f"fast-{place}.json"
            recipe.write_text(TrainConfig(**changes).model_dump_json())
            for seed in range(number, seeds, ROUNDS):
                add(label, seed, partial(ours, "--recipe", str(recipe), "--seed", str(seed)))
    return found


def draw(found: dict[str, list[dict[str, Any]]]) -> None:
    """Test accuracy against seconds: each of the original's trainings a line, each length of ours a point."""
    figure = Figure(figsize=(10, 4.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    peers = found["original, Keras"]
    for peer in peers:
        seconds, tests = zip(*peer["curve"], strict=True)
        axes.plot(seconds, [100 * test for test in tests], color=LINES[1], alpha=0.7, linewidth=1)
    axes.plot([], [], color=LINES[1], label="the original in Keras, epoch by epoch")
    own = {label: runs for label, runs in found.items() if "epochs" in label}
    middle = [(statistics.mean(r["seconds"] for r in runs), runs) for runs in own.values()]
    for seconds, runs in middle:
        axes.plot(
            [seconds] * len(runs), [100 * run["test"] for run in runs], "o", color=LINES[0], markersize=4, alpha=0.5
        )
    means = sorted((seconds, 100 * statistics.mean(run["test"] for run in runs)) for seconds, runs in middle)
    axes.plot(*zip(*means, strict=True), color=LINES[0], linewidth=2, label="fmnist, trainings of several lengths")
    goal = 100 * statistics.mean(peer["test"] for peer in peers)
    axes.axhline(goal, color="black", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{seconds:,}" for seconds in TICKS])
    axes.minorticks_off()
    axes.text(axes.get_xlim()[0], goal, " A*", va="bottom", fontsize=12)
    axes.set_ylim(88, 94)
    axes.set_xlabel("seconds of training", fontsize=13)
    axes.set_ylabel("test accuracy, %", fontsize=13)
    axes.set_title(f"The original's CNN, {os.cpu_count()} cores, {arithmetic()}", fontsize=15)
    axes.legend(loc="lower center", frameon=False, fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    PICTURE.write_bytes(as_png(figure))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="trainings of the original")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    arguments = parser.parse_args()
    found = measure(arguments.rounds, arguments.fresh)
    text = report(found)
    print(text)
    keep(f"<!-- accuracy, {arithmetic()} -->", text)
    draw(found)


if __name__ == "__main__":
    main()
