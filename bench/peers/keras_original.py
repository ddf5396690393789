"""The peer: the original's whole training in Keras + TensorFlow, to where it stops by itself.

keras_original.py ARRAYS.npz SEED

Adam at 1e-3, batches of 2,000, at most 100 epochs, ended after 10 without a lower validation loss; the weights of the
lowest are kept. Prints the seconds after each epoch, validation included, and what the test images give then, which
takes no part in the training nor in the seconds.
"""

import json
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from keras_model import original


class Watch(keras.callbacks.Callback):
    """Seconds and test accuracy of each epoch."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        super().__init__()
        self.images, self.labels = images, labels
        self.curve: list[tuple[float, float]] = []
        self.apart = 0.0
        self.started = 0.0

    def on_train_begin(self, logs: object = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        now = time.perf_counter()
        self.curve.append((now - self.started - self.apart, self.score()))
        self.apart += time.perf_counter() - now

    def score(self) -> float:
        answers = self.model.predict(self.images, batch_size=1000, verbose=0)
        return float((answers.argmax(1) == self.labels).mean())


def pictures(images: np.ndarray) -> np.ndarray:
    return images[..., None].astype(np.float32) / 255


def main(arrays: str, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    with np.load(arrays) as file:
        given = {name: file[name] for name in file.files}
    model = original()
    model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.Adam(), metrics=["accuracy"])
    watch = Watch(pictures(given["test_images"]), given["test_labels"])
    done = model.fit(
        pictures(given["images"]),
        keras.utils.to_categorical(given["labels"], 10),
        validation_data=(
            pictures(given["validation_images"]),
            keras.utils.to_categorical(given["validation_labels"], 10),
        ),
        batch_size=2000,
        epochs=100,
        verbose=0,
        callbacks=[watch, keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True)],
    )
    kept = int(np.argmin(done.history["val_loss"]))
    result = {"curve": watch.curve, "seconds": watch.curve[-1][0], "test": watch.score()}
    result |= {"val": done.history["val_accuracy"][kept]}
    print(json.dumps(result | {"versions": f"Keras {keras.__version__}, TensorFlow {tf.__version__}"}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
