import asyncio
import json
from typing import Any

import pytest

from fmnist.serve.service import Service
from fmnist.serve.tensors import INPUT

from .conftest import ListSource, Reply, ask, make_service

MODEL = "/v2/models/fashion-mnist"
INFER = f"{MODEL}/infer"


def send(service: Service, body: Any, path: str = INFER) -> Reply:
    return asyncio.run(ask(service, "POST", path, json.dumps(body).encode()))


def test_without_a_model_it_lives_and_is_not_ready(source: ListSource) -> None:
    source.now = 9
    service = make_service(source, key="0123456789abcdef")
    assert asyncio.run(ask(service, "GET", "/v2/health/live")).json == {"live": True}
    reply = asyncio.run(ask(service, "GET", "/v2/health/ready"))
    assert (reply.status, reply.json) == (503, {"error": "fashion-mnist has no champion yet; train one: fmnist train"})
    assert asyncio.run(ask(service, "GET", "/v2")).json["error"].startswith("the API key: is missing")
    service = make_service(source)
    for method, path in (("GET", MODEL), ("GET", f"{MODEL}/versions/1"), ("GET", f"{MODEL}/ready"), ("POST", INFER)):
        reply = asyncio.run(ask(service, method, path))
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")


def test_a_version_that_was_asked_for_is_the_one_that_answers(
    service: Service, source: ListSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}]}
    first = f"{MODEL}/versions/1/infer"
    assert send(service, body, first).json["outputs"][1]["data"] == ["0"]
    answer = service.batcher.answer

    async def after_a_swap(images: Any) -> Any:
        source.now = 1
        service.keeper.look()
        return await answer(images)

    monkeypatch.setattr(service.batcher, "answer", after_a_swap)
    reply = send(service, body, first)
    assert (reply.status, reply.json["error"]) == (404, "version '1': is not the one that answers; that is 2")
    reply = send(service, body)
    assert (reply.json["model_version"], reply.json["outputs"][1]["data"]) == ("2", ["1"])


def test_below_v2_every_error_has_the_protocols_form(service: Service) -> None:
    for method, path, status in (
        ("GET", "/v2/repository/index", 404),
        ("POST", "/v2", 405),
        ("GET", INFER, 405),
        ("GET", "/v2/", 404),
        ("GET", "/v2x", 404),
    ):
        reply = asyncio.run(ask(service, method, path))
        assert reply.status == status
        assert list(reply.json) == (["error"] if path != "/v2x" else ["type", "title", "status", "detail", "id"])
