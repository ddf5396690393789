"""Where a training step's time goes, by kind of operation, in both engines, and how near its products are to the peak.

make bench-profile          into bench/RESULTS.md
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from results import arithmetic, keep, machine
from roofline import Operators, table
from torch.profiler import ProfilerActivity, profile

from fmnist import load_data
from fmnist.data.dataset import Split
from fmnist.engine.fast import FastEngine
from fmnist.engine.plain import Engine
from fmnist.recipe import ORIGINAL

BATCH, STEPS = 256, 50
KINDS = {
    "convolutions": ("mkldnn_convolution", "convolution_backward"),
    "matrix multiplications": ("mm", "addmm", "addmm_", "bmm"),
    "normalization": ("native_batch_norm", "native_batch_norm_backward", "batch_norm_update_stats"),
    "pool, ReLU, dropout: comparing and choosing": (
        *("max_pool2d_with_indices", "max_pool2d_with_indices_backward", "threshold_backward", "maximum", "eq", "ge"),
        *("clamp_min", "clamp_min_", "bitwise_and", "bitwise_and_", "bitwise_xor", "bitwise_xor_", "neg", "neg_"),
    ),
    "copies and fills": ("copy_", "fill_", "zero_", "cat", "index"),
    "sums and products of elements": ("add", "add_", "mul", "mul_", "addcmul_", "sum", "div", "div_"),
    "optimizer": ("_fused_adamw_", "_foreach_add_"),
}
MULTIPLICATIONS = {
    "conv1": 26 * 26 * 9 * 32,
    "conv2": 11 * 11 * 9 * 32 * 64,
    "conv3": 3 * 3 * 9 * 64 * 128,
    "dense": 148_736,
}
"""Of the forward pass, an image."""


def step_times(engine: Engine, data: Split) -> tuple[dict[str, float], float]:
    """Milliseconds a step of each kind of operation, and of the whole step, unprofiled."""
    engine.train_epoch(data, 1)
    whole = statistics.median(engine.train_epoch(data, epoch).seconds for epoch in (2, 3, 4))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        engine.train_epoch(data, 5)
    by_name = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in profiler.key_averages()}
    kinds = {kind: sum(by_name.pop(name, 0) for name in names) / STEPS / 1000 for kind, names in KINDS.items()}
    kinds["everything else, Python included"] = sum(by_name.values()) / STEPS / 1000
    return kinds, 1000 * whole / STEPS


def operators(engine: Engine, data: Split) -> Operators:
    """What each operator takes, over an epoch of an engine that is warm."""
    with Operators() as found:
        engine.train_epoch(data, 6)
    return found


def quickest(call: Callable[[], object]) -> float:
    times = []
    for _ in range(20):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def peak(dtype: torch.dtype) -> float:
    """Multiply-adds a second of a product of large matrices."""
    square = torch.randn(1024, 1024).to(dtype)
    return float(1024**3 / quickest(lambda: square @ square))


def main() -> None:
    train = load_data().train
    some = np.random.default_rng(0).permutation(len(train))[: BATCH * STEPS]
    data = Split(train.images[some], train.labels[some])
    config = ORIGINAL.model_copy(update={"batch_size": BATCH, "epochs": 5})
    engines = {"plain": Engine(config, 10, "cpu"), "fast": FastEngine(config, 10, "cpu")}
    found = {name: step_times(engine, data) for name, engine in engines.items()}
    dtype = engines["fast"].precision
    needed = BATCH * (3 * sum(MULTIPLICATIONS.values()) - MULTIPLICATIONS["conv1"])  # no gradient for the pictures
    best = peak(dtype)
    lines = [
        f"## Where a training step's time goes ({arithmetic()})",
        "",
        f"Milliseconds a step of {BATCH} images, dropout as the original's, {str(dtype).removeprefix('torch.')}; "
        f"{machine()}; PyTorch's profiler over {STEPS} steps, which slows them a little. `make bench-profile`",
        "",
        "| | plain | fast |",
        "|---|---|---|",
        *(f"| {kind} | {found['plain'][0][kind]:.1f} | {found['fast'][0][kind]:.1f} |" for kind in found["fast"][0]),
        f"| all | {sum(found['plain'][0].values()):.1f} | {sum(found['fast'][0].values()):.1f} |",
        f"| a step without the profiler | {found['plain'][1]:.1f} | {found['fast'][1]:.1f} |",
        "",
        f"A step needs {needed / 1e9:.2f} G multiply-adds; large matrices are multiplied at {best / 1e9:.0f} G/s, "
        f"so no step can take less than {1000 * needed / best:.1f} ms: {BATCH * best / needed:,.0f} images a second.",
        "",
        "The roofline of a step of `fast`, operator by operator, each timed alone; `least`: in what time its bytes, "
        "read and written, can be copied, or its products computed at the rate of large matrices, whichever is longer.",
        "",
        *table(operators(engines["fast"], data), STEPS, best, quickest),
    ]
    print("\n".join(lines))
    keep(f"<!-- profile, {arithmetic()} -->", "\n".join(lines))


if __name__ == "__main__":
    main()
