"""Trained model -> one ONNX file that needs nothing else: preprocessing, network, softmax, metadata.

Takes uint8 [N, 28, 28], gives probabilities [N, C].
"""

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fmnist.data.formats import SIDE
from fmnist.errors import Failure, one_line
from fmnist.files import write_whole
from fmnist.predictor import Predictor

TOLERANCE = 1e-4
"""How far a probability may lie from PyTorch's."""
OPSET = 18


class Deployed(nn.Module):
    """The network with what comes before and after it: bytes in, probabilities out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.unsqueeze(1).float() / 255)
        return logits.softmax(1)


def export_model(network: nn.Module, path: Path, metadata: dict[str, str], check_images: NDArray[np.uint8]) -> None:
    """Write `network` as an ONNX file with `metadata`.

    Before it takes its place at `path`, its answers on `check_images` (uint8 [N, 28, 28]) are held against
    PyTorch's. Raises Failure where one differs by more than TOLERANCE, or the exporter can't; then nothing is written.
    """
    deployed = Deployed(network).cpu().eval()
    try:
        model = _to_onnx(deployed)
    except Exception as error:  # the exporter's own, and those of what it traces
        reason = f"{type(error).__name__}: {one_line(error.__cause__ or error)[:200]}"
        raise Failure(
            path, f"cannot be made of this model ({reason}); mend its forward, its weights are kept"
        ) from error
    onnx.helper.set_model_props(model, metadata)
    candidate = path.with_suffix(".candidate.onnx")
    try:
        write_whole(candidate, model.SerializeToString())
        answers = Predictor(candidate).probabilities(check_images)
        with torch.inference_mode():
            expected = torch.cat([deployed(batch) for batch in torch.split(torch.tensor(check_images), 500)]).numpy()
        difference = float(np.abs(answers - expected).max())
        if not difference <= TOLERANCE:
            raise Failure(
                path, f"answers differ from PyTorch's by {difference:.1g} (at most {TOLERANCE:g}); not exported"
            )
        candidate.replace(path)
    finally:
        candidate.unlink(missing_ok=True)


def _to_onnx(deployed: nn.Module) -> onnx.ModelProto:
    """torch.onnx's exporter, silenced: it reports its progress on stdout and stderr."""
    batch = torch.export.Dim("N")
    example = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
    for name in ("onnxscript", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            deployed,
            (example,),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes={"images": {0: batch}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def metadata_of(class_names: tuple[str, ...], digest: str, config: str, run_id: str) -> dict[str, str]:
    """What a model file says of itself, as text: classes, data, recipe (JSON) and run."""
    return {"class_names": json.dumps(class_names), "data_digest": digest, "recipe": config, "run_id": run_id}
