"""What surrounds the training steps: the start, the data, evaluation, checkpoints, tracking, memory.

make bench-around          into bench/RESULTS.md
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from results import arithmetic, keep, machine

ROOT = Path(__file__).parents[1]
ROUNDS = 3
IMPORTS = "torch", "fmnist.training", "onnxruntime"
INSIDE = """
import json, sys, tempfile, time
from pathlib import Path
from fmnist import TrainConfig, load_data, train
started = time.perf_counter()
data = load_data()
loaded = time.perf_counter() - started
from fmnist.checkpoint import read_checkpoint, write_checkpoint
from fmnist.engine.fast import make_engine
from fmnist.tracking.tracker import JournalTracker
engine = make_engine(TrainConfig(), 10)
engine.evaluate(data.test)
started = time.perf_counter()
engine.evaluate(data.test)
evaluated = time.perf_counter() - started
spent = []
def timed(method):
    def call(*arguments):
        started = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            spent.append(time.perf_counter() - started)
    return call
JournalTracker.commit, JournalTracker.end = timed(JournalTracker.commit), timed(JournalTracker.end)
run = train(TrainConfig(epochs=2), data)
checkpoint = read_checkpoint(run.checkpoint)
saved = []
for _ in range(20):
    started = time.perf_counter()
    write_checkpoint(run.folder / "checkpoint.again", checkpoint)
    saved.append(time.perf_counter() - started)
print(json.dumps({"data in memory": loaded, "evaluation of 10,000 images": evaluated,
  "checkpoint": sorted(saved)[10], "tracking": sum(spent) / run.result.seconds}))
"""


def started_in(environment: dict[str, str]) -> tuple[float, float]:
    """(seconds from the start of `fmnist train` to its first step, its highest memory in MB)."""
    command = [sys.executable, "-m", "fmnist", "train", "--json", "--epochs", "1"]
    began = time.time()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    run_id = json.loads(process.stdout.read())["run_id"]
    _, _, used = os.wait4(process.pid, 0)
    lines = Path(environment["FMNIST_HOME"], "runs", run_id, "journal.jsonl").read_text().splitlines()
    records = [json.loads(json.loads(line)["record"]) for line in lines]
    (epoch,) = (record for record in records if record["key"] == "epoch/1")
    return epoch["time"] - epoch["scores"]["epoch_seconds"] - began, used.ru_maxrss / 1000


def inside(environment: dict[str, str]) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", INSIDE], env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def import_seconds(module: str) -> float:
    """In a process of its own, after what the command itself imports first."""
    code = f"import fmnist.cli, time; s = time.perf_counter(); import {module}; print(time.perf_counter() - s)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def row(what: str, values: Sequence[float], form: Callable[[float], str], goal: str = "") -> str:
    return f"| {what} | {form(statistics.median(values))} | {form(min(values))} to {form(max(values))} | {goal} |"


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "data").symlink_to(ROOT / "var" / "data")
        environment = os.environ | {"FMNIST_HOME": home, "FMNIST_SYNC_WAIT": "600"}
        started_in(environment)  # what is read from the disk is warm
        starts = [started_in(environment) for _ in range(ROUNDS)]
        parts = [inside(environment) for _ in range(ROUNDS)]
    imports = {module: [import_seconds(module) for _ in range(ROUNDS)] for module in IMPORTS}
    milliseconds, seconds = (lambda s: f"{1000 * s:.0f} ms"), (lambda s: f"{s:.2f} s")
    table = [
        row("`fmnist train` until its first step, warm", [start for start, _ in starts], seconds, "4 s"),
        *(row(f"of it, `import {name}` alone", values, seconds) for name, values in imports.items()),
        row("data in memory", [part["data in memory"] for part in parts], seconds, "0.3 s"),
        row("evaluation of 10,000 images", [p["evaluation of 10,000 images"] for p in parts], seconds, "0.6 s"),
        row("a checkpoint, on disk", [part["checkpoint"] for part in parts], milliseconds, "20 ms"),
        row("the training thread's time in tracking", [p["tracking"] for p in parts], lambda x: f"{x:.2%}", "1 %"),
        row("highest memory of a training", [peak for _, peak in starts], lambda x: f"{x:,.0f} MB", "1,200 MB"),
    ]
    text = "\n".join(
        [
            f"## Around the training steps ({arithmetic()})",
            "",
            f"{machine()}; n = {ROUNDS} processes each; a checkpoint is the median of 20. `make bench-around`",
            "",
            "| | median | range | wanted, at most |",
            "|---|---|---|---|",
            *table,
        ]
    )
    print(text)
    keep(f"<!-- around, {arithmetic()} -->", text)


if __name__ == "__main__":
    main()
