"""The Open Inference Protocol v2 over HTTP, for the one model that is served, under its registered name.

A version in the path must be the one that answers: there is no other. Parameters that aren't known are ignored, as
clients send their own; shared memory and classification, which would change what is read or answered, are refused.
Answers are never compressed: probabilities don't get smaller.
"""

from collections.abc import Callable
from typing import Any

import orjson

from fmnist import __version__
from fmnist.serve.batcher import RETRY, Batcher
from fmnist.serve.keeper import Keeper
from fmnist.serve.limits import Limits
from fmnist.serve.model import Model
from fmnist.serve.tensors import answer, metadata, parse_request
from fmnist.serve.web import JSON, Refused, Request, Response, Route, Routes, as_json

_MODEL = "/v2/models/{model}"
_VERSION = f"{_MODEL}/versions/{{version}}"


def refuse(refused: Refused, request_id: str) -> Response:
    """The protocol's one form for all errors."""
    return Response(refused.status, orjson.dumps({"error": refused.detail}), JSON, refused.headers)


class Inference:
    """The routes below /v2."""

    def __init__(
        self, keeper: Keeper, batcher: Batcher, limits: Limits, model_name: str, is_ready: Callable[[], bool]
    ) -> None:
        self._keeper, self._batcher, self._limits = keeper, batcher, limits
        self._name, self._is_ready = model_name, is_ready

    def routes(self) -> Routes:
        routes: Routes = {
            ("GET", "/v2"): Route(self._server, "/v2", refuse),
            ("GET", "/v2/health/live"): Route(self._live, "/v2/health/live", refuse, protected=False),
            ("GET", "/v2/health/ready"): Route(self._ready, "/v2/health/ready", refuse, protected=False),
        }
        for path in (_MODEL, _VERSION):
            routes["GET", path] = Route(self._metadata, path, refuse)
            routes["GET", f"{path}/ready"] = Route(self._model_ready, f"{path}/ready", refuse)
            routes["POST", f"{path}/infer"] = Route(self._infer, f"{path}/infer", refuse)
        return routes

    async def _server(self, request: Request) -> Response:
        return as_json({"name": "fmnist", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def _live(self, request: Request) -> Response:
        return as_json({"live": True})

    async def _ready(self, request: Request) -> Response:
        self._check_ready()
        return as_json({"live": True, "ready": True})

    async def _model_ready(self, request: Request) -> Response:
        self._model(request)
        self._check_ready()
        return as_json({"name": self._name, "ready": True})

    async def _metadata(self, request: Request) -> Response:
        return as_json(metadata(self._name, self._model(request)))

    async def _infer(self, request: Request) -> Response:
        self._model(request)
        asked = parse_request(request.headers, request.body, self._limits)
        model, rows = await self._batcher.answer(asked.images)
        self._check_version(request, model)  # it may have been swapped while the request waited
        return answer(self._name, model, rows, asked)

    def _check_ready(self) -> None:
        if self._keeper.model is None:
            raise Refused(503, self._keeper.absence, RETRY)
        if not self._is_ready():
            raise Refused(503, "the service: is being stopped; ask another")

    def _model(self, request: Request) -> Model:
        """The one that answers now. Raises Refused where the path names another."""
        if request.captured["model"] != self._name:
            raise Refused(404, f"model {request.captured['model'][:60]!a}: is not served here; there is {self._name}")
        if self._keeper.model is None:
            raise Refused(503, self._keeper.absence, RETRY)
        self._check_version(request, self._keeper.model)
        return self._keeper.model

    @staticmethod
    def _check_version(request: Request, model: Model) -> None:
        version: Any = request.captured.get("version", model.version)
        if version != model.version:
            raise Refused(404, f"version {version[:60]!a}: is not the one that answers; that is {model.version}")
