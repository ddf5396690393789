"""Ours, the champion served by itself, with one part left out: what that part costs, the others tell.

ours_serve.py PORT [PART]
"""

import sys
from contextlib import nullcontext
from typing import Any

import numpy as np

from fmnist.serve import app as application
from fmnist.serve import predict
from fmnist.serve.server import serve
from fmnist.serve.service import Service
from fmnist.serve.wiring import make_service
from fmnist.settings import Settings
from fmnist.workspace import Workspace

BATCHING, MODEL, ANSWERS, DEADLINES, METRICS, HEADERS, ALL = PARTS = (
    "batching",
    "model",
    "answers",
    "deadlines",
    "metrics",
    "headers",
    "everything",
)
BODY = 600  # bytes, about as many as an answer has


def leave_out(service: Service, part: str) -> None:
    """`service`: changed in place, and what all services share too."""
    shared: Any = application
    if part == BATCHING:
        service.batcher.answer = _alone(service)  # type: ignore[method-assign]
    elif part == MODEL:
        service.batcher.answer = _constant(service)  # type: ignore[method-assign]
    elif part == ANSWERS:
        predict.Predict._answers = staticmethod(lambda *_: [])  # type: ignore[method-assign, assignment]
    elif part == DEADLINES:
        nothing = nullcontext()
        shared.Deadlines.begin = lambda *_: nothing
    elif part == METRICS:
        shared.count = lambda *_: None
    elif part == HEADERS:
        shared.HEADERS = ()
    elif part == ALL:
        service.app = _floor  # type: ignore[assignment]
    elif part:
        raise SystemExit(f"{part}: is no part; there are {', '.join(PARTS)}")


def _alone(service: Service) -> Any:
    async def answer(images: Any) -> Any:
        model = service.keeper.model
        assert model is not None
        return model, model.predictor.probabilities(images)

    return answer


def _constant(service: Service) -> Any:
    rows = np.full((1, 10), 0.1, np.float32)

    async def answer(images: Any) -> Any:
        return service.keeper.model, rows

    return answer


async def _floor(scope: Any, receive: Any, send: Any) -> None:
    """uvicorn, and the least that answers."""
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % BODY)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(BODY)})


def main(port: int, part: str = BATCHING) -> None:
    service = make_service(Workspace(Settings()), "champion", "127.0.0.1", port)
    leave_out(service, part)
    serve(service, "127.0.0.1", port)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
