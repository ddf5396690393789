"""The Open Inference Protocol, as the clients that people have speak it."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.errors import NotFoundError, ServiceUnavailableError
from open_inference.openapi.types import InferenceRequest, RequestInput
from tritonclient.utils import InferenceServerException

from fmnist import __version__
from fmnist.data.dataset import Dataset
from fmnist.predictor import Predictor
from fmnist.run import Run
from fmnist.serve.guard import Guard
from fmnist.serve.service import Service
from fmnist.serve.tensors import INPUT, OUTPUTS

from ..helpers import asgi_server


@pytest.fixture(scope="module")
def address(trained: Service) -> Iterator[str]:
    """Where it listens."""
    trained.app.guard = Guard(None)
    with asgi_server(trained.app, http="httptools", interface="asgi3") as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def triton(address: str) -> Iterator[Any]:
    with tritonclient.http.InferenceServerClient(address) as client:
        yield client


@pytest.fixture
def client(address: str) -> Iterator[OpenInferenceClient]:
    with httpx.Client(timeout=60) as connection:
        yield OpenInferenceClient(base_url=f"http://{address}", httpx_client=connection)


@pytest.fixture
def pictures(dataset: Dataset) -> Any:
    """uint8 [3, 28, 28]."""
    return np.ascontiguousarray(dataset.test.images[:3])


@pytest.fixture
def expected(pictures: Any, finished: Run) -> Any:
    return Predictor(finished.model).probabilities(pictures)


def tensor(images: Any, datatype: str = "UINT8") -> Any:
    given = tritonclient.http.InferInput(INPUT, list(images.shape), datatype)
    return given.set_data_from_numpy(images)


def test_triton_sees_the_server_and_the_model(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("fashion-mnist")
    assert triton.is_model_ready("fashion-mnist", "1")
    assert not triton.is_model_ready("fashion-mnist", "2")
    assert not triton.is_model_ready("other")
    assert triton.get_server_metadata() == {
        "name": "fmnist",
        "version": __version__,
        "extensions": ["binary_tensor_data"],
    }
    about = triton.get_model_metadata("fashion-mnist")
    assert about == triton.get_model_metadata("fashion-mnist", "1")
    assert about == {
        "name": "fashion-mnist",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }


def test_triton_at_its_defaults_sends_bytes_and_gets_bytes(
    triton: Any, pictures: Any, expected: Any, dataset: Dataset
) -> None:
    result = triton.infer("fashion-mnist", [tensor(pictures)])
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-6)
    labels = [dataset.class_names[at] for at in expected.argmax(1)]
    assert [label.decode() for label in result.as_numpy("label")] == labels
    about = result.get_response()
    assert (about["model_name"], about["model_version"], about.get("id")) == ("fashion-mnist", "1", None)
    assert all("data" not in output for output in about["outputs"])


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_triton_may_pack_what_it_sends(triton: Any, pictures: Any, expected: Any, packing: str) -> None:
    options = {"request_compression_algorithm": packing, "response_compression_algorithm": packing}
    result = triton.infer("fashion-mnist", [tensor(pictures)], "1", request_id="mine", **options)
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-6)
    assert result.get_response()["id"] == "mine"


def test_triton_asks_for_some_outputs_in_some_form_and_has_its_parameters_ignored(
    triton: Any, pictures: Any, expected: Any
) -> None:
    wanted = [tritonclient.http.InferRequestedOutput(name, binary_data=name == "label") for name in OUTPUTS[::-1]]
    given = tritonclient.http.InferInput(INPUT, list(pictures.shape), "UINT8")
    given.set_data_from_numpy(pictures, binary_data=False)
    options = {"priority": 1, "timeout": 10**6, "sequence_id": 7, "parameters": {"own": 1}}
    result = triton.infer("fashion-mnist", [given], outputs=wanted, **options)
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-6)
    label, probabilities = result.get_response()["outputs"]
    assert (label["name"], "data" in label) == ("label", False)
    assert (probabilities["name"], len(probabilities["data"])) == ("probabilities", 30)


@pytest.mark.parametrize("datatype", ["uint16", "int16", "int32", "uint64", "float16", "float32", "float64"])
def test_triton_may_send_whole_numbers_of_other_types(triton: Any, pictures: Any, expected: Any, datatype: str) -> None:
    images = pictures.astype(datatype)
    name = datatype.upper().replace("FLOAT", "FP")
    result = triton.infer("fashion-mnist", [tensor(images, name)])
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-6)


def test_triton_sends_many_images_at_once_and_not_too_many(triton: Any, dataset: Dataset, finished: Run) -> None:
    images = dataset.train.images[:301]
    result = triton.infer("fashion-mnist", [tensor(images[:256])])
    rows = Predictor(finished.model).probabilities(images[:256])
    np.testing.assert_allclose(result.as_numpy("probabilities"), rows, atol=1e-6)
    with pytest.raises(InferenceServerException, match="301 images: 300 at most fit into a request") as raised:
        triton.infer("fashion-mnist", [tensor(images)])
    assert raised.value.status() == "413"


def test_triton_is_told_what_is_wrong(triton: Any, pictures: Any) -> None:
    for name, version, images, status, said in (
        ("other", "", pictures, "404", "model 'other': is not served here; there is fashion-mnist"),
        ("fashion-mnist", "2", pictures, "404", "version '2': is not the one that answers; that is 1"),
        (
            "fashion-mnist",
            "",
            pictures[0],
            "400",
            "shape [28, 28]: is not the model's; give images, UINT8, [N, 28, 28]",
        ),
    ):
        with pytest.raises(InferenceServerException) as raised:
            triton.infer(name, [tensor(images)], version)
        assert (raised.value.status(), raised.value.message()) == (status, said)
    with pytest.raises(InferenceServerException, match="there is nothing"):  # an extension that isn't here
        triton.get_inference_statistics("fashion-mnist")


def test_open_inference_sends_floats_and_gets_numbers(
    client: OpenInferenceClient, pictures: Any, expected: Any
) -> None:
    client.check_server_liveness()
    client.check_server_readiness()
    client.check_model_readiness("fashion-mnist")
    client.check_model_version_readiness("fashion-mnist", "1")
    assert client.read_server_metadata().extensions == ["binary_tensor_data"]
    assert client.read_model_metadata("fashion-mnist").versions == ["1"]
    assert client.read_model_version_metadata("fashion-mnist", "1").inputs[0].shape == [-1, 28, 28]
    for data in (pictures.tolist(), pictures.ravel().tolist()):
        given = RequestInput(name=INPUT, datatype="UINT8", shape=[3, 28, 28], data=data)
        answer = client.model_infer("fashion-mnist", request=InferenceRequest(id="mine", inputs=[given]))
        probabilities, label = answer.outputs
        np.testing.assert_allclose(np.reshape(probabilities.dict()["data"], (3, 10)), expected, atol=1e-6)
        assert label.dict()["data"] == expected.argmax(1).tolist()  # it takes the names of these classes for numbers
        assert (answer.id, answer.model_version) == ("mine", "1")


def test_open_inference_is_told_what_is_missing(client: OpenInferenceClient) -> None:
    with pytest.raises(NotFoundError) as raised:
        client.check_model_readiness("other")
    assert raised.value.body == {"error": "model 'other': is not served here; there is fashion-mnist"}


def test_while_it_takes_leave_it_is_not_ready_and_answers(trained: Service, client: OpenInferenceClient) -> None:
    trained.draining = True
    try:
        for check in (client.check_server_readiness, lambda: client.check_model_readiness("fashion-mnist")):
            with pytest.raises(ServiceUnavailableError) as raised:
                check()
            assert raised.value.body == {"error": "the service: is being stopped; ask another"}
        client.check_server_liveness()
        client.read_model_metadata("fashion-mnist")
        given = RequestInput(name=INPUT, datatype="UINT8", shape=[1, 28, 28], data=[0] * 784)
        assert client.model_infer("fashion-mnist", request=InferenceRequest(inputs=[given])).model_version == "1"
    finally:
        trained.draining = False
