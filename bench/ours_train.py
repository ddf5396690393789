"""Ours, on the peer's terms: the original's network at its dropout, Adam, no augmentation. An image rate an epoch.

ours_train.py ARRAYS.npz BATCH EPOCHS fast|plain|cuda|cuda-plain
"""

import json
import secrets
import sys

import numpy as np
import torch

from fmnist.data.dataset import Split
from fmnist.engine.fast import FastEngine
from fmnist.engine.graphed import GraphedEngine
from fmnist.engine.plain import Engine
from fmnist.recipe import ORIGINAL


def main(arrays: str, batch_size: int, epochs: int, engine_name: str) -> None:
    with np.load(arrays) as file:
        data = Split(file["images"], file["labels"])
        validation = None
        if "validation_images" in file:
            validation = Split(file["validation_images"], file["validation_labels"])
    seed = secrets.randbits(32)  # the peers have none either
    config = ORIGINAL.model_copy(update={"batch_size": batch_size, "epochs": epochs, "seed": seed})
    engines = {"fast": FastEngine, "plain": Engine, "cuda": GraphedEngine, "cuda-plain": Engine}
    engine = engines[engine_name](config, 10, "cuda" if "cuda" in engine_name else "cpu")
    results = [engine.train_epoch(data, epoch) for epoch in range(1, epochs + 1)]
    rates = [result.images / result.seconds for result in results]
    precision = str(engine.precision).removeprefix("torch.")
    result = {"rates": rates, "versions": f"PyTorch {torch.__version__}, {precision}"}
    if validation:
        result["val_accuracy"] = engine.evaluate(validation).scores.accuracy
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
