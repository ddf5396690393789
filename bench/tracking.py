"""What tracking costs: whole trainings, every record in MLflow and TensorBoard before they end, and without, in turn.

make bench-tracking         n = 5 pairs, some 20 minutes, into bench/RESULTS.md
make bench-tracking ARGS="--pairs 1 --epochs 2"
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from results import keep, machine

MARK = "<!-- tracking -->"
TRAIN = """
import contextlib, sys, time
import onnx, onnxruntime, sklearn, torch
import fmnist.training, fmnist.export
from fmnist.__main__ import main
started = time.perf_counter()
with contextlib.suppress(SystemExit):
    main(sys.argv[1:])
print(time.perf_counter() - started, file=sys.stderr)
"""


def seconds(home: Path, tracking: str, arguments: list[str]) -> float:
    """How long a training takes after its imports."""
    settings = {"FMNIST_HOME": str(home), "FMNIST_TRACKING": tracking, "FMNIST_SYNC_WAIT": "600"}
    command = [sys.executable, "-c", TRAIN, "train", "--json", *arguments]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=True)
    run_id = json.loads(done.stdout)["run_id"]
    if tracking == "yes":
        shipped = json.loads((home / "runs" / run_id / "shipping.json").read_text())
        assert len(shipped) == 2 and all(lane["ended"] for lane in shipped.values()), shipped
    return float(done.stderr.splitlines()[-1])


def section(epochs: int, with_it: list[float], without: list[float]) -> str:
    costs = [one / other - 1 for one, other in zip(with_it, without, strict=True)]
    row = "| {} | {:.1f} | {:.1f}-{:.1f} |".format
    return "\n".join(
        [
            "## What tracking costs",
            "",
            f"Whole trainings by the recipe `fast`, {epochs} epochs, from after the imports to the end, MLflow "
            f"(SQLite) and TensorBoard having everything; {machine()}; n = {len(costs)} pairs, in turn. "
            "`make bench-tracking`",
            "",
            "| | seconds, median | range |",
            "|---|---|---|",
            row("tracked", statistics.median(with_it), min(with_it), max(with_it)),
            row("not tracked", statistics.median(without), min(without), max(without)),
            "",
            f"Cost, pair by pair: median {statistics.median(costs):.1%}, {min(costs):.1%} to {max(costs):.1%}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--home", type=Path, help="keep the tracked runs there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        homes = {"yes": arguments.home or Path(scratch) / "tracked", "no": Path(scratch) / "untracked"}
        for home in homes.values():
            subprocess.run(
                [sys.executable, "-m", "fmnist", "data"],
                env=os.environ | {"FMNIST_HOME": str(home)},
                stdout=subprocess.DEVNULL,
                check=True,
            )
        times: dict[str, list[float]] = {"yes": [], "no": []}
        for pair in range(arguments.pairs):
            for tracking in ("yes", "no") if pair % 2 else ("no", "yes"):  # neither is always the first
                options = ["--seed", str(pair), "--epochs", str(arguments.epochs), "--name", f"seed {pair}"]
                times[tracking].append(seconds(homes[tracking], tracking, options))
            one, other = times["yes"][-1], times["no"][-1]
            print(f"pair {pair + 1}: {one:.1f} s tracked, {other:.1f} s not, {one / other - 1:.1%}", flush=True)
    text = section(arguments.epochs, times["yes"], times["no"])
    print(text)
    if arguments.pairs >= 5:
        keep(MARK, text)


if __name__ == "__main__":
    main()
