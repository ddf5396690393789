"""The original's network in Keras, as its README gives it."""

import keras
from keras import layers


def original(classes: int = 10, dropout: float = 1.0) -> keras.Sequential:
    """The network, not compiled; `dropout` is a factor on its rates."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, (3, 3), activation="relu", kernel_initializer="he_normal"),
            layers.BatchNormalization(),
            layers.MaxPooling2D((2, 2)),
            layers.Dropout(0.25 * dropout),
            layers.BatchNormalization(),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Dropout(0.25 * dropout),
            layers.BatchNormalization(),
            layers.Conv2D(128, (3, 3), activation="relu"),
            layers.Dropout(0.4 * dropout),
            layers.Flatten(),
            layers.BatchNormalization(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.3 * dropout),
            layers.Dense(classes, activation="softmax"),
        ]
    )
