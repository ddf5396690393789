"""An ONNX file -> answers, without PyTorch."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmnist.data.formats import SIDE
from fmnist.errors import UserError, one_line

BATCH = 500
"""Images that go through the network at once: enough to keep the cores busy, little enough to stay in cache."""


class Answer(NamedTuple):
    """What the model takes a picture for."""

    label: str
    probability: float
    probabilities: dict[str, float]
    """Of every class, the likeliest first."""


class Predictor:
    """A trained model, ready to answer. Metadata tell what it was trained on."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 0) -> None:
        """Load the ONNX file at `path`. `threads`: of computation, 0 for one a core. Raises UserError."""
        import onnxruntime

        self.path = Path(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            content = self.path.read_bytes()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise UserError(self.path, f"cannot be read ({error.strerror}); name an .onnx file") from error
        except Exception as error:  # its errors share no base class
            raise UserError(self.path, f"is no ONNX model ({one_line(error)[:120]}); name one of fmnist's") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        if [i.type for i in inputs] != ["tensor(uint8)"] or inputs[0].shape[1:] != [SIDE, SIDE] or len(outputs) != 1:
            raise UserError(self.path, f"does not take uint8 [N, {SIDE}, {SIDE}]; name a model of fmnist's")
        try:
            self.class_names = tuple(str(name) for name in json.loads(self.metadata["class_names"]))
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(self.path, "does not say its classes; name a model of fmnist's") from error
        self._input = inputs[0].name

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [N, 28, 28] -> probabilities [N, C]. Raises UserError for anything else."""
        if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
            raise UserError("images", f"are {images.dtype} {list(images.shape)}; give uint8 [N, {SIDE}, {SIDE}]")
        starts = range(0, len(images), BATCH)
        parts = [self._session.run(None, {self._input: images[start : start + BATCH]})[0] for start in starts]
        return np.concatenate(parts) if parts else np.empty((0, len(self.class_names)), np.float32)

    def predict(self, images: NDArray[np.uint8]) -> list[Answer]:
        """uint8 [N, 28, 28] -> an answer for each."""
        return [self._answer(row) for row in self.probabilities(images)]

    def _answer(self, row: NDArray[Any]) -> Answer:
        ranked = {self.class_names[i]: float(row[i]) for i in np.argsort(-row, kind="stable")}
        label = next(iter(ranked))
        return Answer(label, ranked[label], ranked)

    def __repr__(self) -> str:
        return f"Predictor({self.path}, {len(self.class_names)} classes)"
