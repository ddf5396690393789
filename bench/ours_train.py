"""Ours, on the peer's terms: the original's network at its dropout, Adam, no augmentation. An image rate an epoch."""

import json
import sys

import numpy as np
import torch

from fmnist.data.dataset import Split
from fmnist.engine.plain import Engine
from fmnist.recipe import ORIGINAL


def main(arrays: str, batch_size: int, epochs: int) -> None:
    with np.load(arrays) as file:
        data = Split(file["images"], file["labels"])
    engine = Engine(ORIGINAL.model_copy(update={"batch_size": batch_size, "epochs": epochs}), 10)
    results = [engine.train_epoch(data, epoch) for epoch in range(1, epochs + 1)]
    rates = [result.images / result.seconds for result in results]
    print(json.dumps({"rates": rates, "versions": f"PyTorch {torch.__version__}, {engine.precision}"}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
