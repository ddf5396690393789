"""The recipe `resnet`: how accurate, in what time, and what flip averaging gives and costs.

make bench-resnet                     3 trainings of 15 minutes, 3 of a tenth of that; goes on where it was interrupted
make bench-resnet ARGS="--seeds 1"    one of each

Each is `fmnist train` in a process and a workspace of its own. The recipe was chosen by validation accuracy alone.
"""

import argparse
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import ours, sources, spread
from results import arithmetic, keep, machine, measurements

from fmnist import load_data
from fmnist.checkpoint import read_checkpoint
from fmnist.engine.plain import Engine
from fmnist.export import export_model
from fmnist.predictor import Predictor
from fmnist.run import list_runs

ROOT = Path(__file__).parents[1]
SEEDS = 3
SHORT = 4
"""Epochs of a training that reaches what the original's author reports, 93.14 %."""
ROUNDS = 5


def without_average(home: Path) -> dict[str, Any]:
    """The same weights, not averaged over mirror images: accuracy, and what an answer costs with and without."""
    (run,), data = list_runs(home / "runs"), load_data()
    engine = Engine(run.config.model_copy(update={"average_flips": False}), len(data.class_names), "cpu")
    state = read_checkpoint(run.checkpoint).state
    engine.load_weights({n.removeprefix("model/model."): t for n, t in state.items() if n.startswith("model/")})
    plain = home / "plain.onnx"
    export_model(engine.model, plain, {"class_names": "[]"}, data.validation.images[:500])
    predictors, seconds = [Predictor(run.model), Predictor(plain)], [[], []]  # type: ignore[var-annotated]
    for _ in range(ROUNDS):
        for predictor, times in zip(predictors, seconds, strict=True):
            started = time.perf_counter()
            answers = predictor.probabilities(data.test.images)
            times.append(time.perf_counter() - started)
    accuracy = float(np.mean(answers.argmax(1) == data.test.labels))
    return {"test_alone": accuracy, "ratio": statistics.median(np.divide(*seconds))}


def report(found: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        f"## The recipe resnet ({arithmetic()})",
        "",
        f"488,026 parameters, on the 48,000 images; seconds from the first step to the end, validation included; "
        f"{machine()}. `make bench-resnet`",
        "",
        "| | seconds | images/s | validation | test | test, no flip averaging |",
        "|---|---|---|---|---|---|",
    ]
    for label, runs in found.items():
        columns = (("seconds", ",.0f"), ("rate", ",.0f"), ("val", ".2%"), ("test", ".2%"), ("test_alone", ".2%"))
        told = [spread([run[name] for run in runs], form) for name, form in columns]
        lines.append(f"| {label} | {' | '.join(told)} |")
    ratios = [run["ratio"] for runs in found.values() for run in runs]
    lines += ["", f"With the mean an answer takes {spread(ratios, '.2f')} times as long (10,000 images at once)."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    arguments = parser.parse_args()
    measured = measurements("resnet", [*sources(), ROOT / "fmnist" / "models.py"], arguments.fresh)
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in range(arguments.seeds):
        for label, wish in (("whole", ()), (f"{SHORT} epochs", ("--epochs", str(SHORT)))):
            command = ("--recipe", "resnet", "--seed", str(seed), *wish)
            run = measured.get(f"{label}, seed {seed}", partial(ours, *command, look=without_average))
            found.setdefault(f"{run['epochs']} epochs", []).append(run)
    text = report(found)
    print(text)
    keep(f"<!-- resnet, {arithmetic()} -->", text)


if __name__ == "__main__":
    main()
