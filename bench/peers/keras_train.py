"""The peer: the original's network, optimizer and loss in Keras + TensorFlow `fit`. Prints an image rate an epoch."""

import json
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from keras_model import original


def main(arrays: str, batch_size: int, epochs: int) -> None:
    with np.load(arrays) as file:
        x = file["images"][..., None].astype(np.float32) / 255
        y = keras.utils.to_categorical(file["labels"], 10)
    model = original()
    model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.Adam(), metrics=["accuracy"])
    rates = []
    for _ in range(epochs):
        started = time.perf_counter()
        model.fit(x, y, batch_size=batch_size, verbose=0)
        rates.append(len(x) / (time.perf_counter() - started))
    print(json.dumps({"rates": rates, "versions": f"Keras {keras.__version__}, TensorFlow {tf.__version__}"}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
