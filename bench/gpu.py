"""Training on a GPU: ours beside what people would use there, in turn, and whole trainings.

make bench-gpu                      into bench/RESULTS.md; goes on where it was interrupted
make bench-gpu ARGS="--rounds 3"    fewer of each

Keras runs on JAX, if both are installed where this runs.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from accuracy import ours, spread
from results import keep, measurements, told
from train import HERE, ROOT, rows, run, sources, write_arrays

OURS, TORCH, KERAS = HERE / "ours_train.py", HERE / "peers" / "torch_train.py", HERE / "peers" / "keras_train.py"
ROUNDS, EPOCHS, BATCH = 5, 4, 256
SEEDS = {"fast": 10, "original": 3, "resnet": 3}


def contenders(arrays: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """Label -> a process that measures."""
    ways = {
        "fmnist": (OURS, "cuda"),
        "fmnist, engine plain": (OURS, "cuda-plain"),
        "PyTorch as tutorials write it": (TORCH, "cuda"),
    }
    if importlib.util.find_spec("keras") and importlib.util.find_spec("jax"):
        ways["Keras on JAX"] = KERAS, "fp32"
    given = arrays, str(BATCH), str(EPOCHS)
    return {
        label: partial(run, [sys.executable, str(script), *given, way], {"KERAS_BACKEND": "jax"})
        for label, (script, way) in ways.items()
    }


def trainings(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = [
        "| `fmnist train --recipe` | epochs | seconds of training | the whole command | validation | test |",
        "|---|---|---|---|---|---|",
    ]
    for recipe, runs in found.items():
        columns = (("seconds", ".1f"), ("whole", ".1f"), ("val", ".2%"), ("test", ".2%"))
        said = [spread([run[name] for run in runs], form) for name, form in columns]
        lines.append(f"| {recipe} | {told([run['epochs'] for run in runs], '.0f')} | {' | '.join(said)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("bench-gpu: PyTorch sees no CUDA device here")
    gpu, (_, arrays) = torch.cuda.get_device_name(), write_arrays()
    measured = measurements("gpu", [*sources(), ROOT / "fmnist" / "recipe.py"], arguments.fresh)
    lines = [
        f"## On a GPU ({gpu})",
        "",
        f"The original's network at its dropout, Adam, on all 48,000 images, then whole trainings in processes and "
        f"workspaces of their own; PyTorch {torch.__version__}, {os.cpu_count()} cores, one {gpu}; n = "
        f"{arguments.rounds} processes each, in turn, batch {BATCH}, each the median of {EPOCHS - 1} epochs after one "
        "to warm up. `make bench-gpu`",
        "",
    ]
    rates: dict[str, list[float]] = {}
    versions: dict[str, str] = {}
    for number in range(arguments.rounds):
        for label, call in contenders(arrays).items():
            result = measured.get(f"{gpu}: {label}, round {number + 1}", call)
            rates.setdefault(label, []).append(result["rate"])
            versions[label] = result["versions"]
    lines += [*rows(rates, versions), ""]
    found: dict[str, list[dict[str, Any]]] = {}
    for recipe, seeds in SEEDS.items():
        for seed in range(seeds):
            call = partial(ours, "--recipe", recipe, "--seed", str(seed))
            found.setdefault(recipe, []).append(measured.get(f"{gpu}: {recipe}, seed {seed}", call))
    text = "\n".join([*lines, *trainings(found)])
    print(text)
    keep(f"<!-- gpu, {gpu} -->", text)


if __name__ == "__main__":
    main()
