import asyncio
import gzip
import json
import logging
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
import pytest

from fmnist.predictor import Predictor
from fmnist.run import Run
from fmnist.serve.limits import Limits
from fmnist.serve.scoring import MLFLOW_VERSION, OUTPUT
from fmnist.serve.service import Service

from .conftest import ListSource, Reply, ask, make_service
from .scoring_cases import CASES, DIFFERENT, JSON, Case, flat, images, pixels


@pytest.fixture(scope="module")
def trained(finished: Run) -> Iterator[Service]:
    """With a model that tells pictures apart."""
    service = make_service(ListSource(finished.model), Limits(images=4))
    yield service
    service.close()


def score(service: Service, body: bytes, content_type: str | None = JSON, **headers: str) -> Reply:
    given = headers if content_type is None else headers | {"Content-Type": content_type}
    return asyncio.run(ask(service, "POST", "/invocations", body, given))


@pytest.mark.parametrize("case", [*CASES, *(case for case, _ in DIFFERENT)], ids=lambda case: case.name[:40])
def test_every_request_is_answered_as_by_mlflow(trained: Service, finished: Run, case: Case) -> None:
    reply = score(trained, case.body, case.content_type)
    assert reply.status == case.status, reply.body
    if case.status == 200:
        assert reply.headers["content-type"] == "application/json"
        assert list(reply.json) == ["predictions"]
        assert list(reply.json["predictions"]) == [OUTPUT]
        expected = Predictor(finished.model).probabilities(images(case))
        np.testing.assert_allclose(reply.json["predictions"][OUTPUT], expected, atol=1e-6)
    elif case.status == 415:
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    else:
        assert reply.headers["content-type"] == "application/json"
        assert reply.json["error_code"] == case.code
        assert reply.json["message"].isprintable()


def test_pictures_of_the_cases_are_told_apart(finished: Run) -> None:
    """Or the answers above would show nothing."""
    rows = Predictor(finished.model).probabilities(np.array([pixels(v) for v in (0, 1, 7, 9, 200, 255)], np.uint8))
    differences = np.abs(rows[:, None] - rows[None]).max(-1)
    assert differences[~np.eye(6, dtype=bool)].min() > 1e-5


def test_an_error_has_mlflows_sqlstate_and_class(trained: Service) -> None:
    about = score(trained, b"{").json
    assert (about["sqlstate"], about["error_class"]) == ("KAM00", "INVALID_PARAMETER_VALUE")
    about = score(trained, json.dumps({"inputs": pixels(7)}).encode()).json
    assert about == {
        "error_code": "INVALID_PARAMETER_VALUE",
        "message": "inputs: has the shape [28, 28]; give whole numbers from 0 to 255, [N][28][28]",
        "sqlstate": "KAM01",
        "error_class": "SCHEMA_ENFORCEMENT_FAILED",
    }


def test_the_process_is_alive_with_a_model_and_without(source: ListSource) -> None:
    for source.now in (0, 9):
        service = make_service(source, key="0123456789abcdef")
        for path in ("/ping", "/health"):
            reply = asyncio.run(ask(service, "GET", path))
            assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"\n", "application/json")
        service.close()


def test_the_version_is_that_of_the_mlflow_that_is_pinned(call: Any) -> None:
    reply = call("GET", "/version")
    assert (reply.status, reply.body.decode()) == (200, MLFLOW_VERSION)
    assert version("mlflow") == MLFLOW_VERSION


def test_without_a_model_it_is_unavailable(source: ListSource) -> None:
    source.now = 9
    reply = score(make_service(source), json.dumps({"inputs": [pixels(7)]}).encode())
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.json == {
        "error_code": "TEMPORARILY_UNAVAILABLE",
        "message": "fashion-mnist has no champion yet; train one: fmnist train",
    }


def test_another_method_is_told_which_as_by_fastapi(call: Any) -> None:
    for method, path, allowed in (
        ("GET", "/invocations", "POST"),
        ("POST", "/ping", "GET"),
        ("HEAD", "/version", "GET"),
    ):
        reply = call(method, path)
        assert (reply.status, reply.headers["allow"]) == (405, allowed)
    assert list(call("GET", "/invocations").json) == ["detail"]


def test_more_images_than_fit_and_a_frame_of_any_size(trained: Service) -> None:
    reply = score(trained, json.dumps({"inputs": [pixels(7)] * 5}).encode())
    assert (reply.status, reply.json["error_code"]) == (413, "BAD_REQUEST")
    assert reply.json["message"] == "5 images: 4 at most fit into a request; send several"
    rows = json.dumps({"dataframe_records": [[0] * 1000, *([[]] * 1000)]}).encode()
    assert score(trained, rows).json["message"].startswith("dataframe_records: has 1,000 columns and 1,001 rows")


def test_a_packed_body_is_unpacked(trained: Service) -> None:
    body = json.dumps({"dataframe_records": [{"a": flat(7)}]}).encode()
    packed = score(trained, gzip.compress(body), **{"Content-Encoding": "gzip"})
    assert (packed.status, packed.json) == (200, score(trained, body).json)


def test_what_a_client_says_is_not_logged(trained: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fmnist.serve")
    score(trained, json.dumps({"inputs": ["a secret"]}).encode())
    assert "secret" not in caplog.text


def test_the_output_is_called_as_the_model_calls_it(finished: Run) -> None:
    assert [output.name for output in onnx.load(finished.model).graph.output] == [OUTPUT]
