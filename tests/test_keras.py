"""The network and a training step held against arrays that Keras made (tests/data/keras.npz says how)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmnist.data.dataset import Split
from fmnist.engine.fast import FastEngine
from fmnist.engine.plain import Engine
from fmnist.models import count_parameters
from fmnist.recipe import ORIGINAL

FILE = Path(__file__).parent / "data" / "keras.npz"
LAYERS = ("conv1", "norm1", "norm2", "conv2", "norm3", "conv3", "norm4", "dense1", "dense2")
NORM = ("weight", "bias", "running_mean", "running_var")
NAMES = [f"{layer}.{part}" for layer in LAYERS for part in (NORM if layer.startswith("norm") else ("weight", "bias"))]
"""PyTorch's names, in the order of Keras's weights."""


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    with np.load(FILE) as file:
        return dict(file)


@pytest.fixture(scope="module")
def provenance(reference: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(str(reference["provenance"]))
    return facts


@pytest.fixture(params=[Engine, FastEngine])
def engine(request: pytest.FixtureRequest, reference: dict[str, Any], provenance: dict[str, Any]) -> Engine:
    """The original's recipe, dropout off, with Keras's weights."""
    config = ORIGINAL.model_copy(update={"dropout": 0, "precision": "fp32", "batch_size": 16, "epochs": 1})
    engine: Engine = request.param(config, 10, "cpu")
    state = engine.model.state_dict()
    for index, (name, scale) in enumerate(zip(NAMES, provenance["scales"], strict=True)):
        values = reference[f"weights/{index}"].astype(np.float32) * np.float32(scale)
        state[name] = torch.from_numpy(_to_torch(values))
    engine.load_weights(state)
    return engine


def _to_torch(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keras's kernel layouts, [h, w, in, out] and [in, out] -> PyTorch's."""
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim)
    return np.ascontiguousarray(array.transpose(order)) if order else array


def _to_keras(tensor: Tensor) -> NDArray[np.float32]:
    """The other way round; flat, and of a large array the values that the fixture keeps."""
    order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.dim())
    array = tensor.detach().numpy()
    flat = (array.transpose(order) if order else array).ravel()
    return flat[:: -(-flat.size // 4096)]


def test_parameter_counts_are_keras_own(engine: Engine, provenance: dict[str, Any]) -> None:
    counts = provenance["parameters"]
    assert count_parameters(engine.model) == (counts["all"], counts["trainable"]) == (246_666, 244_106)


def test_forward_pass(engine: Engine, reference: dict[str, Any]) -> None:
    engine.model.eval()
    images = torch.from_numpy(reference["images"]).unsqueeze(1).float() / 255
    with torch.inference_mode():
        probabilities = engine.model(images).softmax(1).numpy()
    assert probabilities.max(1).min() > 0.01 and probabilities.std() > 0.05  # neither flat nor all the same
    np.testing.assert_allclose(probabilities, reference["probabilities"], atol=2e-5)


def test_training_step(engine: Engine, reference: dict[str, Any]) -> None:
    result = engine.train_epoch(Split(reference["images"], reference["labels"].astype(np.int64)), 1)
    np.testing.assert_allclose(result.loss, reference["loss"], rtol=1e-5)
    parameters, state = dict(engine.model.named_parameters()), engine.model.state_dict()
    # Rounding's size. norm1's own gradients are no larger: norm2 comes next and undoes what norm1 scales.
    noise = 1e-5 * max(np.abs(reference[f"gradient/{NAMES.index(name)}"]).max() for name in parameters)
    surely_compared = 0
    for index, name in enumerate(NAMES):
        after, expected = _to_keras(state[name]), reference[f"after/{index}"]
        sure = np.ones(len(after), bool)
        if name in parameters:
            gradient = parameters[name].grad
            assert gradient is not None
            given, wanted = _to_keras(gradient), reference[f"gradient/{index}"]
            # Where two units of a pool are the same but for rounding, each machine lets another have the gradient:
            # a few values of the layers before that pool differ, by little.
            close = np.isclose(given, wanted, rtol=1e-3, atol=noise * 10)
            assert close.mean() > 0.9, name
            assert np.linalg.norm(given - wanted) < 0.01 * np.linalg.norm(wanted) + noise * len(wanted) ** 0.5, name
            # Adam's first step is the learning rate times g/(|g|+epsilon): where g is next to 0, rounding decides it.
            sure = close & (np.abs(wanted) > 100 * noise)
            assert np.abs(after - expected).max() < 2.1e-3, name
        surely_compared += sure.sum()
        np.testing.assert_allclose(after[sure], expected[sure], rtol=1e-5, atol=2e-6, err_msg=name)
    assert surely_compared > 10_000
