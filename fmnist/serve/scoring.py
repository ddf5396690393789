"""MLflow's scoring protocol: what `mlflow models serve` answers for a model of ours, its refusals included.

It differs where the real server is plainly wrong, or needs what the service has not:

- Without a Content-Type: 415, not 500. JSON nested a thousand deep or with a number of 5,000 digits: 400, not 500.
- In a data frame, 300, -1 and NaN are refused as they are in `inputs`; the real server wraps them into 0 to 255.
- Which of its two codes a malformed data frame gets may differ: where it holds integers past 64 bits, for one.
- `index` in `dataframe_split` is ignored; the real server takes only rows of which one is numbered 0.
- `data` in `dataframe_split` is a list of rows; the real server takes an object of columns, too.
- Parquet is refused unread (BAD_REQUEST): its reader is larger than the service. The real server takes one column of
  lists of 784 uint8, and says INVALID_PARAMETER_VALUE to other frames.
- The service's own limits: 413 for too many images, 503 when it has too much to do or no model.
- A body may be gzip or deflate.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from fmnist.serve.batcher import Batcher
from fmnist.serve.columns import BAD, FRAMES, UNFIT, Unscorable, from_frame, from_tensor
from fmnist.serve.limits import Limits
from fmnist.serve.web import JSON, Refused, Request, Response, Route, Routes, as_json

MLFLOW_VERSION = "3.17.2"
"""The version whose answers these are; clients ask for it."""
OUTPUT = "probabilities"
"""What fmnist's ONNX files call their output."""
_TENSORS = ("inputs", "instances")
_CHAT = frozenset(("messages", "prompt", "input"))
"""Fields by which MLflow takes a request for one to a language model, without looking at the others."""
_TYPES = ("application/json", "text/csv", "application/vnd.apache.parquet")
_PLAIN = b"text/plain; charset=utf-8"
_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}
_CLASSES = {BAD: ("KAM00", "INVALID_PARAMETER_VALUE"), UNFIT: ("KAM01", "SCHEMA_ENFORCEMENT_FAILED")}
"""MLflow's code -> its sqlstate and error class."""


def scoring_routes(batcher: Batcher, limits: Limits) -> Routes:
    """/ping, /health, /version and /invocations. The first two say that the process lives, with a model or without."""

    async def invocations(request: Request) -> Response:
        images = images_of(request, limits)
        _, rows = await batcher.answer(images)
        return as_json({"predictions": {OUTPUT: rows}})

    alive = _constant(Response(200, b"\n"))
    return {
        ("GET", "/ping"): Route(alive, "/ping", refuse, protected=False),
        ("GET", "/health"): Route(alive, "/health", refuse, protected=False),
        ("GET", "/version"): Route(_constant(Response(200, MLFLOW_VERSION.encode())), "/version", refuse),
        ("POST", "/invocations"): Route(invocations, "/invocations", refuse),
    }


def _constant(response: Response) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        return response

    return handle


def refuse(refused: Refused, request_id: str) -> Response:
    """As MLflow says it: in its own JSON, but in plain text for media types, and in FastAPI's JSON for methods."""
    if refused.status == 415:
        return Response(415, refused.detail.encode(), _PLAIN, refused.headers)
    if refused.status in (404, 405):
        return as_json({"detail": refused.detail}, refused.status)._replace(headers=refused.headers)
    code = refused.code if isinstance(refused, Unscorable) else _CODES.get(refused.status, BAD)
    about = {"error_code": code, "message": refused.detail}
    if code in _CLASSES:
        about["sqlstate"], about["error_class"] = _CLASSES[code]
    return Response(refused.status, orjson.dumps(about), JSON, refused.headers)


def images_of(request: Request, limits: Limits) -> NDArray[np.uint8]:
    """uint8 [N, 28, 28]. Raises Refused."""
    kind = _media_type(request.headers.get(b"content-type"))
    if kind != "application/json":
        raise Unscorable(BAD, f"Content-Type {kind}: holds no tensors; send application/json")
    content = _parse(request.body)
    if not isinstance(content, dict):
        raise Unscorable(BAD, 'the body: is no JSON object; give {"inputs": …}')
    if not _CHAT.isdisjoint(content):
        raise Unscorable(UNFIT, "messages, prompt, input: are for language models; give inputs or instances")
    given = [name for name in (*_TENSORS, *FRAMES) if name in content]
    if len(given) != 1:
        raise Unscorable(BAD, f"the body: has {len(given)} of {', '.join((*_TENSORS, *FRAMES))}; give one")
    field = given[0]
    values = content[field]
    images = from_tensor(values, field) if field in _TENSORS else from_frame(values, field, limits)
    if len(images) > limits.images:
        raise Refused(413, f"{len(images):,} images: {limits.images:,} at most fit into a request; send several")
    return images


def _media_type(header: bytes | None) -> str:
    """One of the three; case counts, and parameters must be known, as for the real server. Raises Refused."""
    if header == JSON:
        return "application/json"
    if header is None:
        raise Refused(415, "Content-Type: is missing; send application/json")
    text = header.decode("latin-1")
    kind, *rest = (part.strip() for part in text.split(";"))
    parameters = dict(part.partition("=")[::2] for part in rest)
    if parameters.pop("charset", "utf-8").lower() != "utf-8":
        raise Refused(415, "Content-Type: its charset is not known; send UTF-8")
    if parameters or kind not in _TYPES:
        raise Refused(415, f"Content-Type {text[:60]!a}: is not known; send application/json")
    return kind


def _parse(body: bytes) -> Any:
    """What orjson refuses may still be JSON to Python, and so to MLflow: NaN, UTF-16, a byte order mark."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unscorable(BAD, f"the body: is no JSON ({str(error)[:100]!a}); mend it") from error
