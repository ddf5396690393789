"""Makes tests/data/keras.npz: what Keras itself computes with the original's network. `make keras-fixture`.

Inputs: 16 real images and weights that int8 numbers times a power of two give exactly. Outputs: the forward pass,
then one training step with dropout off: loss, gradients, Adam's update, moving statistics. Of a large array only
every so many-th value is kept.
"""

import gzip
import json
import platform
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras_model import original

TEST_DATA = Path(__file__).parents[2] / "tests" / "data"
KEPT = 4096
"""Values of an array at most."""


def kept(array: np.ndarray) -> np.ndarray:
    flat = np.asarray(array, np.float32).ravel()
    return flat[:: -(-flat.size // KEPT)]


def weights_for(model: keras.Model, rng: np.random.Generator) -> tuple[list[np.ndarray], list[float]]:
    """(int8 arrays, their scales): kernels about as large as initializers make them, everything else away from rest."""
    arrays, scales = [], []
    for variable in model.weights:
        kind = variable.path.split("/")[-1]
        numbers = rng.integers(-100, 101, variable.shape)
        scale = 2.0**-9
        if kind == "kernel":
            scale = 2.0 ** round(np.log2(2 / np.sqrt(np.prod(variable.shape[:-1])) / 100))
        elif kind in ("gamma", "moving_variance"):
            numbers, scale = rng.integers(40, 101, variable.shape), 2.0**-6
        arrays.append(numbers.astype(np.int8))
        scales.append(scale)
    return arrays, scales


def main() -> None:
    with gzip.open(TEST_DATA / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)[::25][:16]
    labels = np.arange(16) * 7 % 10
    model = original(dropout=0)
    arrays, scales = weights_for(model, np.random.default_rng(7))
    for variable, numbers, scale in zip(model.weights, arrays, scales, strict=True):
        variable.assign(numbers.astype(np.float32) * np.float32(scale))
    x = images[..., None].astype(np.float32) / 255
    out = {"images": images, "labels": labels, "probabilities": model(x, training=False).numpy()}
    optimizer = keras.optimizers.Adam()
    with tf.GradientTape() as tape:
        predicted = model(x, training=True)
        target = keras.utils.to_categorical(labels, 10)
        loss = tf.reduce_mean(keras.losses.categorical_crossentropy(target, predicted))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    optimizer.apply(gradients, model.trainable_variables)
    out["loss"] = np.float32(loss)
    gradient_of = {v.path: g for v, g in zip(model.trainable_variables, gradients, strict=True)}
    for index, (variable, numbers) in enumerate(zip(model.weights, arrays, strict=True)):
        out[f"weights/{index}"] = numbers
        out[f"after/{index}"] = kept(variable.numpy())
        if variable.path in gradient_of:
            out[f"gradient/{index}"] = kept(gradient_of[variable.path].numpy())
    provenance = {
        "made by": "bench/peers/keras_fixture.py",
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "scales": scales,
        "names": [v.path.split("/", 1)[-1] if "/" in v.path else v.path for v in model.weights],
        "parameters": {
            "all": model.count_params(),
            "trainable": sum(v.numpy().size for v in model.trainable_variables),
        },
    }
    out["provenance"] = np.array(json.dumps(provenance))
    np.savez_compressed(TEST_DATA / "keras.npz", **out)
    print(json.dumps(provenance, indent=1))


if __name__ == "__main__":
    main()
