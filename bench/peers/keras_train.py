"""The peer: the original's network, optimizer and loss in Keras's `fit`. Prints an image rate an epoch.

keras_train.py ARRAYS.npz BATCH EPOCHS fp32|bf16|data

On TensorFlow, or on what KERAS_BACKEND says. `fp32` is what the original does; `bf16` computes in Keras's mixed
precision, `data` feeds by tf.data.
"""

import importlib
import json
import sys
import time

import keras
import numpy as np
from keras_model import original


def main(arrays: str, batch_size: int, epochs: int, way: str) -> None:
    with np.load(arrays) as file:
        images, labels = file["images"], keras.utils.to_categorical(file["labels"], 10)
        validation = (file["validation_images"], file["validation_labels"]) if "validation_images" in file else None
    if way == "bf16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = original()
    model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.Adam(), metrics=["accuracy"])
    if way == "data":
        tf = importlib.import_module("tensorflow")
        fed = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images)).batch(batch_size)
        fed = fed.map(lambda x, y: (tf.cast(x, tf.float32)[..., None] / 255, y)).prefetch(tf.data.AUTOTUNE)
        given = {"x": fed}
    else:
        given = {"x": images[..., None].astype(np.float32) / 255, "y": labels, "batch_size": batch_size}
    rates = []
    for _ in range(epochs):
        started = time.perf_counter()
        model.fit(**given, verbose=0)
        rates.append(len(images) / (time.perf_counter() - started))
    backend = importlib.import_module(keras.backend.backend())
    result = {"rates": rates, "versions": f"Keras {keras.__version__}, {backend.__name__} {backend.__version__}"}
    if validation:
        predicted = model.predict(validation[0][..., None].astype(np.float32) / 255, batch_size=1000, verbose=0)
        result["val_accuracy"] = float((predicted.argmax(1) == validation[1]).mean())
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
