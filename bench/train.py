"""Training throughput: ours against the original's Keras + TensorFlow, in turn, in processes of their own.

make bench-train            n = 5 of each, into bench/RESULTS.md
make bench-train ARGS="--quick"
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from results import keep, machine

from fmnist import load_data

HERE = Path(__file__).parent
PEER_PYTHON = HERE / "peers" / ".venv" / "bin" / "python"
MARK = "<!-- throughput -->"


def rates(command: list[str]) -> tuple[list[float], str]:
    """The image rates of every epoch but the first, which warms up, and the versions."""
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    values = json.loads(done.stdout.splitlines()[-1])
    return values["rates"][1:], values["versions"]


def table(ours: list[float], peers: list[float], versions: tuple[str, str], batch: int) -> str:
    ratios = [own / peer for own, peer in zip(ours, peers, strict=True)]
    row = "| {} | {:,.0f} | {:,.0f}-{:,.0f} |".format
    return "\n".join(
        [
            "## Training throughput",
            "",
            f"The original's network at its dropout, Adam, batch {batch}; {machine()}, for both; "
            f"n = {len(ours)} processes each, in turn, 3 epochs of 12,800 images each after one to warm up. "
            "`make bench-train`",
            "",
            "| | images/s, median | range |",
            "|---|---|---|",
            row(f"fmnist ({versions[0]})", statistics.median(ours), min(ours), max(ours)),
            row(f"the original in {versions[1]}", statistics.median(peers), min(peers), max(peers)),
            "",
            f"Ratio, pair by pair: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--quick", action="store_true", help="one pair, nothing written")
    arguments = parser.parse_args()
    ours, peers, versions = [], [], ("", "")
    with tempfile.TemporaryDirectory() as folder:
        arrays = str(Path(folder) / "arrays.npz")
        train = load_data().train
        some = np.random.default_rng(0).permutation(len(train))[:12_800]
        np.savez(arrays, images=train.images[some], labels=train.labels[some])
        last = [arrays, str(arguments.batch_size), "4"]
        for number in range(1 if arguments.quick else 5):
            own, own_version = rates([sys.executable, str(HERE / "ours_train.py"), *last])
            peer, peer_version = rates([str(PEER_PYTHON), str(HERE / "peers" / "keras_train.py"), *last])
            ours.append(statistics.median(own))
            peers.append(statistics.median(peer))
            versions = own_version, peer_version
            print(
                f"pair {number + 1}: ours {ours[-1]:,.0f}, peer {peers[-1]:,.0f}, {ours[-1] / peers[-1]:.2f}",
                flush=True,
            )
    text = table(ours, peers, versions, arguments.batch_size)
    print(text)
    if not arguments.quick:
        keep(MARK, text)


if __name__ == "__main__":
    main()
