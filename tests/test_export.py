import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from fmnist import export
from fmnist.data.dataset import Dataset
from fmnist.errors import Failure
from fmnist.export import Deployed, export_model, metadata_of
from fmnist.models import MODELS, find_model
from fmnist.predictor import Predictor

METADATA = metadata_of(("a", "b", "c"), "d" * 64, '{"epochs": 1}', "run")


@pytest.mark.parametrize("name", list(MODELS))
def test_the_file_answers_as_the_model_does(tmp_path: Path, dataset: Dataset, name: str) -> None:
    model = find_model(name)(3, 1.0)
    for buffer in model.buffers():  # moving statistics away from rest
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    export_model(model, tmp_path / "m.onnx", METADATA, dataset.test.images[:8])
    with torch.inference_mode():
        expected = Deployed(model).eval()(torch.tensor(dataset.test.images)).numpy()
    found = Predictor(tmp_path / "m.onnx").probabilities(dataset.test.images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_the_file_tells_what_it_is(tmp_path: Path, dataset: Dataset) -> None:
    export_model(find_model("cnn")(3, 1.0), tmp_path / "m.onnx", METADATA, dataset.test.images[:2])
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["class_names"]) == ["a", "b", "c"]
    assert (facts["data_digest"], facts["recipe"], facts["run_id"]) == ("d" * 64, '{"epochs": 1}', "run")
    (given,), (answered,) = model.graph.input, model.graph.output
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    shape = [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim]
    assert (shape, given.name, answered.name) == (["N", 28, 28], "images", "probabilities")


def test_a_file_that_answers_otherwise_does_not_take_its_place(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"the old one")
    to_onnx = export._to_onnx

    def wrong(deployed: Any) -> Any:
        other = copy.deepcopy(deployed)
        with torch.no_grad():
            other.network.dense2.bias[0] += 0.01
        return to_onnx(other)

    monkeypatch.setattr(export, "_to_onnx", wrong)
    with pytest.raises(Failure, match=r"m\.onnx: answers differ from PyTorch's by .* not exported"):
        export_model(find_model("cnn")(3, 1.0), path, METADATA, dataset.test.images[:8])
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]
    assert path.read_bytes() == b"the old one"


def test_what_the_exporter_cannot_do_is_told_and_nothing_is_written(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **options: object) -> None:
        raise RuntimeError("Failed to export\n\x1b[31mcreate an issue") from ValueError("data-dependent\nbranch")

    monkeypatch.setattr(torch.onnx, "export", fails)
    told = (
        r"m.onnx: cannot be made of this model \(RuntimeError: data-dependent branch\); mend its forward, its weights"
    )
    with pytest.raises(Failure, match=told):
        export_model(find_model("cnn")(3, 1.0), tmp_path / "m.onnx", METADATA, dataset.test.images[:2])
    assert list(tmp_path.iterdir()) == []
