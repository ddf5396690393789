"""Tensors of the Open Inference Protocol v2: in JSON, or as bytes behind it (the extension binary_tensor_data).

The input is `images`, [N, 28, 28] as the model declares it and in no other shape; UINT8, or whole numbers from 0 to 255
of another type, because some clients can send floats only. The outputs are the model's `probabilities`, FP32 [N, C],
and `label`, BYTES [N], the likeliest class of each image. A client that names no outputs gets both.
"""

from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from fmnist.data.formats import SIDE
from fmnist.serve.limits import Limits
from fmnist.serve.model import Model
from fmnist.serve.pictures import PIXELS, whole_numbers
from fmnist.serve.web import Refused, Response, parse_json

INPUT = "images"
"""What fmnist's ONNX files call their input."""
PROBABILITIES, LABEL = OUTPUTS = ("probabilities", "label")
HEAD_LENGTH = b"inference-header-content-length"
"""The header that says how many bytes of the body are JSON."""
_TYPES = {
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""Those that can hold 0 to 255."""
_ELSEWHERE = ("shared_memory_region", "classification")
"""Parameters that would change what is read or answered. Others that aren't known here are left alone."""
_WANTED = f"give {INPUT}, UINT8, [N, {SIDE}, {SIDE}]"


class Asked(NamedTuple):
    images: NDArray[np.uint8]
    """[N, 28, 28]"""
    outputs: list[tuple[str, bool]]
    """Name, and whether it is to be bytes behind the JSON."""
    id: str | None = None
    """The client's own, which its answer repeats."""


def parse_request(headers: dict[bytes, bytes], body: bytes, limits: Limits) -> Asked:
    """An inference request. Raises Refused."""
    head, tail = _split(headers.get(HEAD_LENGTH), body)
    if not head:  # nothing but the one tensor's bytes, which the extension allows
        about = {"name": INPUT, "datatype": "UINT8", "shape": [max(1, len(body) // PIXELS), SIDE, SIDE]}
        images = _images(about | {"parameters": {"binary_data_size": len(body)}}, tail, limits)
        return Asked(images, [(name, True) for name in OUTPUTS])
    content = parse_json(head)
    if not isinstance(content, dict):
        raise Refused(400, 'the body: is no JSON object; give {"inputs": […]}')
    name = content.get("id")
    if not isinstance(name, str | None):
        raise Refused(400, "id: is no string; give one, or none")
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refused(400, f"inputs: is not a list of one tensor; {_WANTED}")
    binary = _flag(_parameters(content, "the request"), "binary_data_output", False)
    return Asked(_images(inputs[0], tail, limits), _outputs(content.get("outputs"), binary), name)


def _split(length: bytes | None, body: bytes) -> tuple[bytes, memoryview]:
    if length is None:
        if not body:
            raise Refused(400, f"the body: is empty; {_WANTED}")
        return body, memoryview(b"")
    if not length.isdigit() or len(length) > 18 or int(length) > len(body):
        shown = length[:20].decode("latin-1")
        raise Refused(400, f"Inference-Header-Content-Length {shown!a}: is not the JSON's length; give that")
    return body[: int(length)], memoryview(body)[int(length) :]


def _parameters(of: dict[str, Any], name: str) -> dict[str, Any]:
    parameters = of.get("parameters")
    if not isinstance(parameters, dict | None):
        raise Refused(400, f"parameters of {name}: is no object; give one, or none")
    for other in _ELSEWHERE:
        if parameters and other in parameters:
            raise Refused(400, f"{other} of {name}: is an extension that is not here; leave it out")
    return parameters or {}


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise Refused(400, f"{name}: is neither true nor false; give one of them")
    return value


def _outputs(asked: Any, binary: bool) -> list[tuple[str, bool]]:
    if not asked and isinstance(asked, list | None):
        return [(name, binary) for name in OUTPUTS]
    if not isinstance(asked, list) or not all(isinstance(output, dict) for output in asked):
        raise Refused(400, "outputs: is no list of tensors; give one, or none for all")
    outputs = {}
    for output in asked:
        name = output.get("name")
        if name not in OUTPUTS or name in outputs:
            raise Refused(
                400, f"output {str(name)[:40]!a}: is unknown or named twice; there are {' and '.join(OUTPUTS)}"
            )
        outputs[name] = _flag(_parameters(output, name), "binary_data", binary)
    return list(outputs.items())


def _images(tensor: dict[str, Any], tail: memoryview, limits: Limits) -> NDArray[np.uint8]:
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if name != INPUT:
        raise Refused(400, f"input {str(name)[:40]!a}: is unknown; {_WANTED}")
    if not isinstance(datatype, str) or datatype not in _TYPES:
        raise Refused(400, f"datatype {str(datatype)[:20]!a}: can't hold pictures; {_WANTED}")
    if not isinstance(shape, list) or [type(side) for side in shape] != [int] * 3 or shape[1:] != [SIDE, SIDE]:
        raise Refused(400, f"shape {str(shape)[:40]}: is not the model's; {_WANTED}")
    count = shape[0]
    if count < 1:
        raise Refused(400, f"shape {shape}: holds no image; {_WANTED}")
    if count > limits.images:
        raise Refused(413, f"{count:,} images: {limits.images:,} at most fit into a request; send several")
    size = _parameters(tensor, INPUT).get("binary_data_size")
    if size is not None:
        array = _from_bytes(tensor, size, count, tail)
    elif tail:
        raise Refused(400, f"the body: goes on after the JSON, and {INPUT} has no binary_data_size; give it")
    else:
        array = _from_json(tensor.get("data"), count)
    pixels = array if array.dtype == np.uint8 else whole_numbers(array, INPUT)
    return pixels.reshape(count, SIDE, SIDE)


def _from_bytes(tensor: dict[str, Any], size: Any, count: int, tail: memoryview) -> NDArray[Any]:
    """Not copied."""
    datatype = np.dtype(_TYPES[tensor["datatype"]])
    if "data" in tensor:
        raise Refused(400, f"{INPUT}: has data and binary_data_size; give one of them")
    if type(size) is not int or size != len(tail):
        raise Refused(400, f"binary_data_size {str(size)[:20]}: {len(tail):,} bytes follow the JSON; give as many")
    if size != count * PIXELS * datatype.itemsize:
        raise Refused(400, f"{INPUT}: {size:,} bytes are not {count:,} images of {tensor['datatype']}; {_WANTED}")
    return np.frombuffer(tail, datatype)


def _from_json(data: Any, count: int) -> NDArray[Any]:
    """Flat or nested like the shape -> flat."""
    if not isinstance(data, list) or not data:
        raise Refused(400, f"{INPUT}: has no data; give a list of whole numbers from 0 to 255")
    values = _flattened(data) if isinstance(data[0], list) else data
    if len(values) != count * PIXELS:
        raise Refused(400, f"{INPUT}: has {len(values):,} numbers, not those of {count:,} images; {_WANTED}")
    if type(values[0]) is int:
        try:  # the usual request, the quick way: bytes() takes whole numbers from 0 to 255 alone
            return np.frombuffer(bytes(values), np.uint8)
        except (ValueError, TypeError):
            pass
    if not set(map(type, values)) <= {int, float}:
        raise Refused(400, f"{INPUT}: holds something other than numbers; give whole ones from 0 to 255")
    return np.array(values, np.float64)


def _flattened(data: list[Any]) -> list[Any]:
    """[N][28][28] -> its numbers."""
    try:
        rows = list(chain.from_iterable(data))
        if set(map(len, data)) | set(map(len, rows)) == {SIDE}:
            return list(chain.from_iterable(rows))
    except TypeError:
        pass
    raise Refused(400, f"{INPUT}: its lists are not nested as its shape is; {_WANTED}")


def answer(model_name: str, model: Model, rows: NDArray[np.float32], asked: Asked) -> Response:
    """`rows`: probabilities [N, C]."""
    outputs, parts = [], []
    for name, binary in asked.outputs:
        about = {"name": name, **_described(name, len(rows), rows.shape[1])}
        if binary:
            part = _packed(model, rows) if name == LABEL else rows.astype("<f4", copy=False).tobytes()
            about["parameters"] = {"binary_data_size": len(part)}
            parts.append(part)
        elif name == LABEL:
            about["data"] = [model.class_names[at] for at in rows.argmax(1).tolist()]
        else:
            about["data"] = rows.ravel()
        outputs.append(about)
    content = {"model_name": model_name, "model_version": model.version, "outputs": outputs}
    if asked.id is not None:
        content["id"] = asked.id
    head = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    if not parts:
        return Response(200, head)
    length = ((HEAD_LENGTH, str(len(head)).encode()),)
    return Response(200, b"".join([head, *parts]), b"application/octet-stream", length)


def _described(output: str, count: int, classes: int) -> dict[str, Any]:
    if output == LABEL:
        return {"datatype": "BYTES", "shape": [count]}
    return {"datatype": "FP32", "shape": [count, classes]}


def _packed(model: Model, rows: NDArray[np.float32]) -> bytes:
    """The likeliest classes' names, each with its length in four bytes before it."""
    encoded = [name.encode() for name in model.class_names]
    packed = [len(name).to_bytes(4, "little") + name for name in encoded]
    return b"".join([packed[at] for at in rows.argmax(1).tolist()])


def metadata(model_name: str, model: Model) -> dict[str, Any]:
    """Of the model; -1 stands for any number of images."""
    outputs = [{"name": name, **_described(name, -1, len(model.class_names))} for name in OUTPUTS]
    return {
        "name": model_name,
        "versions": [model.version],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, SIDE, SIDE]}],
        "outputs": outputs,
    }
