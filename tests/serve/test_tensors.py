import asyncio
import json
import struct
import tracemalloc
from typing import Any

import numpy as np
import onnx
import pytest

from fmnist.data.dataset import Dataset
from fmnist.predictor import Predictor
from fmnist.run import Run
from fmnist.serve.service import Service
from fmnist.serve.tensors import INPUT, PROBABILITIES

from .conftest import Reply, ask


def send(service: Service, body: bytes, head: int | None = None) -> Reply:
    """`head`: bytes of the body that are JSON."""
    headers = {} if head is None else {"Inference-Header-Content-Length": str(head)}
    return asyncio.run(ask(service, "POST", "/v2/models/fashion-mnist/infer", body, headers))


def test_bytes_alone_are_images(trained: Service, dataset: Dataset, finished: Run) -> None:
    pictures = np.ascontiguousarray(dataset.test.images[:3])
    reply = send(trained, pictures.tobytes(), 0)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
    head = int(reply.headers["inference-header-content-length"])
    size = json.loads(reply.body[:head])["outputs"][0]["parameters"]["binary_data_size"]
    rows = np.frombuffer(reply.body[head : head + size], "<f4").reshape(3, 10)
    np.testing.assert_allclose(rows, Predictor(finished.model).probabilities(pictures), atol=1e-6)
    labels = [dataset.class_names[at].encode() for at in rows.argmax(1)]
    assert reply.body[head + size :] == b"".join(struct.pack("<I", len(label)) + label for label in labels)


BLANK = {"name": INPUT, "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}
SIZED = {"name": INPUT, "datatype": "UINT8", "shape": [1, 28, 28], "parameters": {"binary_data_size": 784}}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in BLANK.items() if key != name}


@pytest.mark.parametrize(
    ("body", "tail", "said"),
    [
        (b"", None, "the body: is empty; give images, UINT8, [N, 28, 28]"),
        (b"{", None, "the body: is no JSON"),
        ([], None, "the body: is no JSON object"),
        ({}, None, "inputs: is not a list of one tensor"),
        ({"inputs": []}, None, "inputs: is not a list of one tensor"),
        ({"inputs": [BLANK, BLANK]}, None, "inputs: is not a list of one tensor"),
        ({"inputs": [3]}, None, "inputs: is not a list of one tensor"),
        ({"inputs": [BLANK], "id": 3}, None, "id: is no string"),
        ({"inputs": [BLANK], "parameters": []}, None, "parameters of the request: is no object"),
        ({"inputs": [BLANK], "parameters": {"binary_data_output": 1}}, None, "binary_data_output: is neither true nor"),
        ({"inputs": [without("name")]}, None, "input 'None': is unknown; give images"),
        ({"inputs": [BLANK | {"name": "x\x1b\n" * 40}]}, None, "input 'x\\x1b\\n"),
        ({"inputs": [BLANK | {"datatype": "BYTES"}]}, None, "datatype 'BYTES': can't hold pictures"),
        ({"inputs": [BLANK | {"datatype": []}]}, None, "datatype '[]': can't hold pictures"),
        ({"inputs": [without("shape")]}, None, "shape None: is not the model's"),
        ({"inputs": [BLANK | {"shape": [1, 784]}]}, None, "shape [1, 784]: is not the model's"),
        ({"inputs": [BLANK | {"shape": [1.0, 28, 28]}]}, None, "shape [1.0, 28, 28]: is not the model's"),
        ({"inputs": [BLANK | {"shape": [True, 28, 28]}]}, None, "shape [True, 28, 28]: is not the model's"),
        ({"inputs": [BLANK | {"shape": [-1, 28, 28]}]}, None, "shape [-1, 28, 28]: holds no image"),
        ({"inputs": [BLANK | {"shape": [0, 28, 28]}]}, None, "shape [0, 28, 28]: holds no image"),
        ({"inputs": [BLANK | {"shape": [2, 28, 28]}]}, None, "images: has 784 numbers, not those of 2 images"),
        ({"inputs": [BLANK | {"data": []}]}, None, "images: has no data"),
        ({"inputs": [without("data")]}, None, "images: has no data"),
        ({"inputs": [BLANK | {"data": [[0] * 784]}]}, None, "images: its lists are not nested as its shape is"),
        ({"inputs": [BLANK | {"data": [[0] * 28] * 28}]}, None, "images: its lists are not nested as its shape is"),
        ({"inputs": [BLANK | {"data": [[[0] * 28] * 27 + [3]]}]}, None, "images: its lists are not nested"),
        ({"inputs": [BLANK | {"data": [0] * 783 + ["0"]}]}, None, "images: holds something other than numbers"),
        ({"inputs": [BLANK | {"data": [None] * 784}]}, None, "images: holds something other than numbers"),
        ({"inputs": [BLANK | {"data": [True] * 784}]}, None, "images: holds something other than numbers"),
        ({"inputs": [BLANK | {"data": [0] * 783 + [256]}]}, None, "images: holds 256.0; give whole numbers"),
        ({"inputs": [BLANK | {"data": [0] * 783 + [-1]}]}, None, "images: holds -1.0; give whole numbers"),
        ({"inputs": [BLANK | {"data": [0.5] * 784}]}, None, "images: holds 0.5; give whole numbers"),
        ({"inputs": [BLANK | {"data": [0] * 783 + [1 << 70]}]}, None, "images: holds 1.1805916207174113e+21"),
        (
            {"inputs": [BLANK | {"parameters": {"shared_memory_region": "x"}}]},
            None,
            "shared_memory_region of images: is",
        ),
        ({"inputs": [BLANK], "outputs": 3}, None, "outputs: is no list of tensors"),
        ({"inputs": [BLANK], "outputs": [3]}, None, "outputs: is no list of tensors"),
        (
            {"inputs": [BLANK], "outputs": [{"name": "x"}]},
            None,
            "output 'x': is unknown or named twice; there are prob",
        ),
        ({"inputs": [BLANK], "outputs": [{"name": "label"}] * 2}, None, "output 'label': is unknown or named twice"),
        ({"inputs": [BLANK], "outputs": [{"name": ["label"]}]}, None, "output \"['label']\": is unknown"),
        (
            {"inputs": [BLANK], "outputs": [{"name": "label", "parameters": {"binary_data": "yes"}}]},
            None,
            "binary_data: is neither true nor false",
        ),
        (
            {"inputs": [BLANK], "outputs": [{"name": "label", "parameters": {"classification": 3}}]},
            None,
            "classification of label: is an extension that is not here",
        ),
        ({"inputs": [BLANK]}, bytes(784), "the body: goes on after the JSON, and images has no binary_data_size"),
        ({"inputs": [SIZED | {"data": [0]}]}, bytes(784), "images: has data and binary_data_size; give one of them"),
        ({"inputs": [SIZED]}, bytes(783), "binary_data_size 784: 783 bytes follow the JSON; give as many"),
        ({"inputs": [SIZED]}, bytes(785), "binary_data_size 784: 785 bytes follow the JSON"),
        ({"inputs": [SIZED]}, None, "binary_data_size 784: 0 bytes follow the JSON"),
        ({"inputs": [SIZED | {"datatype": "FP32"}]}, bytes(784), "images: 784 bytes are not 1 images of FP32"),
        ({"inputs": [SIZED | {"parameters": {"binary_data_size": "x"}}]}, bytes(784), "binary_data_size x: 784 bytes"),
    ],
)
def test_a_request_that_is_wrong_is_told_in_one_line(
    trained: Service, body: Any, tail: bytes | None, said: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = send(trained, content + (tail or b""), None if tail is None else len(content))
    assert reply.status == 400, reply.body
    assert list(reply.json) == ["error"]
    assert reply.json["error"].startswith(said), reply.json["error"]
    assert reply.json["error"].isprintable()


@pytest.mark.parametrize("length", ["x", "-1", "785", "9" * 30, "1.0", ""])
def test_a_length_of_the_json_that_is_wrong(trained: Service, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length}
    reply = asyncio.run(ask(trained, "POST", "/v2/models/fashion-mnist/infer", bytes(784), headers))
    assert reply.status == 400
    assert reply.json["error"].startswith(f"Inference-Header-Content-Length {length[:20]!a}: is not the JSON's")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 256, 0.5, 1e30])
def test_floats_that_are_no_pixels(trained: Service, value: float) -> None:
    for datatype in ("<f2", "<f4", "<f8"):
        with np.errstate(over="ignore"):
            content = np.full(784, value).astype(datatype).tobytes()
        name = {2: "FP16", 4: "FP32", 8: "FP64"}[np.dtype(datatype).itemsize]
        sized = SIZED | {"datatype": name, "parameters": {"binary_data_size": len(content)}}
        head = json.dumps({"inputs": [sized]}).encode()
        assert send(trained, head + content, len(head)).json["error"].startswith("images: holds ")


def test_text_among_numbers_takes_no_memory(trained: Service) -> None:
    """numpy would give every number as much room as the longest text."""
    body = {"inputs": [BLANK | {"shape": [100, 28, 28], "data": ["x" * 100_000] + [0] * (78_400 - 1)}]}
    tracemalloc.start()
    try:
        assert send(trained, json.dumps(body).encode()).status == 400
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_tensors_are_called_as_the_model_calls_them(finished: Run) -> None:
    graph = onnx.load(finished.model).graph
    assert [given.name for given in graph.input] == [INPUT]
    assert [output.name for output in graph.output] == [PROBABILITIES]
