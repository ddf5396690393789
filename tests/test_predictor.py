import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from fmnist.data.dataset import Dataset
from fmnist.errors import UserError
from fmnist.predictor import BATCH, Predictor
from fmnist.run import Run


def test_answers_are_ranked(finished: Run, dataset: Dataset) -> None:
    predictor = Predictor(finished.model)
    images = dataset.test.images[:5]
    for answer, row in zip(predictor.predict(images), predictor.probabilities(images), strict=True):
        assert answer.label == predictor.class_names[row.argmax()] == next(iter(answer.probabilities))
        assert answer.probability == pytest.approx(row.max())
        assert list(answer.probabilities.values()) == sorted(row.tolist(), reverse=True)
    assert repr(predictor).endswith("model.onnx, 10 classes)")


def test_any_number_of_images_in_any_batches(finished: Run, dataset: Dataset) -> None:
    predictor = Predictor(finished.model)
    many = np.concatenate([dataset.test.images] * 11)[: 2 * BATCH + 1]
    whole = predictor.probabilities(many)
    assert whole.shape == (2 * BATCH + 1, 10)
    np.testing.assert_allclose(whole[-1:], predictor.probabilities(many[-1:]), atol=1e-6)
    assert predictor.probabilities(many[:0]).shape == (0, 10)


@pytest.mark.parametrize("shape", [(28, 28), (3, 28, 27), (3, 784), (3, 1, 28, 28)])
def test_images_of_another_shape(finished: Run, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"images: are uint8 .*; give uint8"):
        Predictor(finished.model).probabilities(np.zeros(shape, np.uint8))


def test_images_of_another_type(finished: Run) -> None:
    with pytest.raises(UserError, match="images: are float64"):
        Predictor(finished.model).probabilities(np.zeros((1, 28, 28)))  # type: ignore[arg-type]


def foreign(tmp_path: Path, kind: int, shape: list[object], metadata: dict[str, str]) -> Path:
    """An ONNX file that is not fmnist's: it gives what it takes."""
    values = [onnx.helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.helper.set_model_props(model, metadata)
    path = tmp_path / "foreign.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("kind", "shape", "metadata", "told"),
    [
        (onnx.TensorProto.FLOAT, ["N", 28, 28], {}, r"does not take uint8 \[N, 28, 28\]; name a model of fmnist's"),
        (onnx.TensorProto.UINT8, ["N", 32, 32], {}, r"does not take uint8 \[N, 28, 28\]"),
        (onnx.TensorProto.UINT8, ["N", 28, 28], {}, "does not say its classes"),
        (onnx.TensorProto.UINT8, ["N", 28, 28], {"class_names": "banana"}, "does not say its classes"),
    ],
)
def test_another_models_file(
    tmp_path: Path, kind: int, shape: list[object], metadata: dict[str, str], told: str
) -> None:
    with pytest.raises(UserError, match=f"foreign.onnx: {told}"):
        Predictor(foreign(tmp_path, kind, shape, metadata))


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty.onnx").touch()
    for name, told in [
        ("text.onnx", "is no ONNX model"),
        ("empty.onnx", "is no ONNX model"),
        ("none.onnx", r"cannot be read \(No such"),
        (".", r"cannot be read \(Is a directory"),
    ]:
        with pytest.raises(UserError, match=told):
            Predictor(tmp_path / name)


def test_it_answers_without_pytorch(finished: Run) -> None:
    code = f"""
import sys
sys.modules["torch"] = None  # an import of it fails
import numpy as np
from fmnist import Predictor
print(Predictor({str(finished.model)!r}).predict(np.zeros((1, 28, 28), np.uint8))[0].label)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in Predictor(finished.model).class_names
