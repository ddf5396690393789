"""What a sweep gives: 20 trials of the recipe `fast`, the best of them beside it, and the time it takes.

make bench-sweep                       some 40 minutes on two cores, into bench/RESULTS.md; goes on where it stopped
make bench-sweep ARGS="--trials 4 --epochs 1 --seeds 1"

The best of many by the validation images is the luckiest of them too. So it is trained again by other seeds, and the
recipe by the same ones, in turn. Then some of the trials are trained again one after another, for as many epochs as the
sweep gave them.
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

from accuracy import ROOT, ours, sources, spread
from results import STORE, keep, machine, measurements, told

from fmnist import load_data
from fmnist.recipe import TrainConfig
from fmnist.sweep import SCORE, list_sweeps, trials_of
from fmnist.tracking.journal import Journal

TRIALS = 20
EVERY = 4
"""Of so many trials one is trained again by itself."""


def search(trials: int, epochs: int) -> dict[str, Any]:
    """`fmnist sweep` in a workspace of its own: what each trial came to, and the seconds of all of it."""
    command = [sys.executable, "-m", "fmnist", "sweep", "--trials", str(trials), "--epochs", str(epochs), "--json"]
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "data").symlink_to(ROOT / "var" / "data")
        environment = os.environ | {"FMNIST_HOME": home, "FMNIST_TRACKING": "no", "CUDA_VISIBLE_DEVICES": ""}
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        whole = time.perf_counter() - started
        (own,) = list_sweeps(Path(home) / "sweeps")
        records = Journal(own.journal).read()
        found = trials_of(own.about, records)
    times = [record["time"] for record in records if record["key"].startswith("trial/")]
    rows = [
        {
            "number": trial.number,
            "state": trial.state,
            "epochs": len(trial.records),
            "seconds": trial.seconds,
            "score": trial.kept and trial.kept[SCORE],
            "config": trial.config.model_dump(),
        }
        for _, trial in sorted(found.items())
    ]
    best = json.loads(done.stdout)["best"]
    return {"whole": whole, "search": max(times) - min(times), "best": best, "trials": rows}


def again(name: str, config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A training of a trial's configuration as an ordinary run."""
    recipe = STORE / f"sweep-{name}.json"
    recipe.write_text(TrainConfig(**(config | changes)).model_dump_json())
    return ours("--recipe", str(recipe))


def report(found: dict[str, Any], pairs: list[dict[str, dict[str, Any]]], alone: list[tuple[float, float]]) -> str:
    trials = found["trials"]
    states = {state: sum(trial["state"] == state for trial in trials) for state in ("completed", "stopped")}
    first, best = trials[0], trials[found["best"] - 1]
    done = sum(trial["epochs"] for trial in trials)
    changed = {name: best["config"][name] for name in best["config"] if best["config"][name] != first["config"][name]}
    lines = [
        "## A sweep",
        "",
        f"`fmnist sweep --trials {len(trials)} --epochs {first['config']['epochs']}`, one trial a core at a time; "
        f"{machine()}. `make bench-sweep`",
        "",
        f"{found['whole']:,.0f} s in all, {found['search']:,.0f} s of them from the first trial's start to the last "
        f"one's end: {states['completed']} trials to their end, {states['stopped']} stopped early, {done} epochs. The "
        f"recipe, which is trial 1: {first['score']:.2%} of the validation images ({first['state']} after "
        f"{first['epochs']} epochs); the best, trial {best['number']}: "
        f"{best['score']:.2%}, with {json.dumps(changed)}.",
        "",
    ]
    if pairs:
        lines += ["| trained again, in turn, by other seeds | validation accuracy | test accuracy |", "|---|---|---|"]
        for name in pairs[0]:
            runs = [pair[name] for pair in pairs]
            val, test = (spread([run[part] for run in runs], ".2%") for part in ("val", "test"))
            lines.append(f"| {name} | {val} | {test} |")
    ratios = [by_itself / own for own, by_itself in alone]
    return "\n".join(
        [
            *lines,
            "",
            f"Trained one after another instead, as processes of all cores, for the same epochs, trials take "
            f"{told(ratios, '.2f')} times as long (n = {len(ratios)}).",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    arguments = parser.parse_args()
    load_data()
    os.environ.pop("RAY_ADDRESS", None)  # on this machine
    needed = [*sources(), *(ROOT / "fmnist" / "cluster").glob("*.py"), ROOT / "fmnist" / "space.py"]
    measured = measurements(f"sweep-{arguments.trials}-{arguments.epochs}", needed, arguments.fresh)
    found = measured.get("sweep", partial(search, arguments.trials, arguments.epochs))
    trials = found["trials"]
    two = {"the recipe": trials[0]["config"], "the best": trials[found["best"] - 1]["config"]}
    pairs: list[dict[str, Any]] = []
    for seed in range(1, arguments.seeds + 1):
        pair = {name: partial(again, name, config, seed=seed) for name, config in two.items()}
        pairs.append({name: measured.get(f"{name}, seed {seed}", call) for name, call in pair.items()})
    share = sum(trial["seconds"] for trial in trials) / found["search"]  # how many there were at a time
    alone = []
    for trial in [trial for trial in trials if trial["epochs"]][::EVERY]:  # the first may end one that diverges
        call = partial(again, "trial", trial["config"], epochs=trial["epochs"])
        alone.append((trial["seconds"] / share, measured.get(f"trial {trial['number']} alone", call)["whole"]))
    text = report(found, pairs, alone)
    print(text)
    if arguments.trials >= TRIALS:
        keep("<!-- sweep -->", text)


if __name__ == "__main__":
    main()
