import asyncio
import gzip
import json
import logging
import zlib
from pathlib import Path
from typing import Any

import pytest

from fmnist.errors import UserError
from fmnist.serve import app as module
from fmnist.serve.guard import read_key
from fmnist.serve.logs import JsonLines
from fmnist.serve.service import Service
from fmnist.serve.web import Route, as_json

from .conftest import ListSource, ask, make_service

KEY = "0123456789abcdef"


def test_a_path_or_a_method_that_is_not_there(call: Any) -> None:
    reply = call("GET", "/nowhere")
    assert (reply.status, reply.json["title"]) == (404, "Not Found")
    assert reply.json["detail"] == "the path '/nowhere': there is nothing; see /docs"
    reply = call("DELETE", "/predict")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")


def test_without_a_model_it_says_what_to_do_and_when_to_come_back(source: ListSource, picture: Any) -> None:
    source.now = 9
    service = make_service(source)
    reply = asyncio.run(ask(service, "POST", "/predict", picture.tobytes()))
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.json["detail"] == "fashion-mnist has no champion yet; train one: fmnist train"
    about = asyncio.run(ask(service, "GET", "/status"))
    assert (about.status, about.json["ready"], about.json["model"]) == (200, False, None)


def test_the_status_tells_what_answers(call: Any, service: Service, source: ListSource) -> None:
    about = call("GET", "/status").json
    assert about["ready"]
    assert about["model"]["version"] == "1"
    assert about["model"]["sha256"] == source.sha256[0]
    assert len(about["model"]["class_names"]) == 10
    source.away = True
    service.keeper.look()
    assert call("GET", "/status").json["registry_trouble"] == "MLflow at http://x: does not answer; start it"


@pytest.mark.parametrize("given", ["a-1_B.c", "x" * 64])
def test_a_plain_request_id_is_kept(call: Any, given: str) -> None:
    assert call("GET", "/status", headers={"X-Request-Id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\x1b[31m", "ä", '"}{'])
def test_an_id_that_could_do_harm_is_replaced(call: Any, given: str) -> None:
    one, other = (call("GET", "/status", headers={"X-Request-Id": given}).headers["x-request-id"] for _ in range(2))
    assert one != other
    assert one.replace("-", "").isalnum()


def test_a_body_arrives_in_pieces_and_packed(call: Any, picture: Any) -> None:
    raw = picture.tobytes()
    expected = call("POST", "/predict", raw).json["predictions"]
    assert call("POST", "/predict", [raw[:100], raw[100:700], raw[700:]]).json["predictions"] == expected
    for encoding, packed in {"gzip": gzip.compress(raw), "deflate": zlib.compress(raw), "identity": raw}.items():
        reply = call("POST", "/predict", packed, {"Content-Encoding": encoding})
        assert reply.json["predictions"] == expected, encoding


def test_other_names_and_foreign_pages_are_turned_away(call: Any) -> None:
    reply = call("GET", "/status", headers={"Host": "evil.example"})
    assert reply.status == 403
    assert reply.json["detail"].startswith("Host 'evil.example': is not known here")
    assert call("POST", "/predict", b"", {"Origin": "http://evil.example"}).status == 403
    assert call("POST", "/predict", bytes(784), {"Origin": "http://localhost"}).status == 200
    assert "access-control-allow-origin" not in call("GET", "/status", headers={"Origin": "http://x"}).headers


def test_every_answer_carries_the_policy(call: Any) -> None:
    for reply in (call("GET", "/status"), call("GET", "/nowhere"), call("POST", "/predict", b"")):
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"


def test_with_a_key_only_its_bearer_is_answered(source: ListSource) -> None:
    service = make_service(source, key=KEY)

    def status(headers: dict[str, str]) -> int:
        return asyncio.run(ask(service, "POST", "/predict", bytes(784), headers)).status

    assert status({}) == 401
    assert status({"Authorization": "Bearer wrong"}) == 401
    assert status({"Authorization": f"Basic {KEY}"}) == 401
    assert status({"Authorization": f"Bearer {KEY}"}) == 200
    assert status({"X-API-Key": KEY}) == 200


def test_a_key_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(UserError, match=r"FMNIST_API_KEY_FILE .*key: cannot be read"):
        read_key(path)
    path.write_text("short\n")
    path.chmod(0o600)
    with pytest.raises(UserError, match="holds no key of 16 letters or more"):
        read_key(path)
    path.write_text(f"{KEY}\n")
    assert read_key(path) == KEY
    path.chmod(0o644)
    with pytest.raises(UserError, match="others can read it; chmod 600"):
        read_key(path)


def test_an_error_of_ours_is_a_500_with_an_id_and_the_log_has_the_rest(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(request: Any) -> Any:
        raise RuntimeError("secret detail")

    service.app.routes["GET", "/broken"] = Route(broken, "/broken")
    service.app.__post_init__()
    reply = asyncio.run(ask(service, "GET", "/broken"))
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert "secret detail" in caplog.text


def test_metrics_count_by_route_and_code(call: Any, picture: Any) -> None:
    def count(text: str, line: str) -> float:
        return next((float(each.rpartition(" ")[2]) for each in text.splitlines() if each.startswith(line)), 0)

    before = call("GET", "/metrics").body.decode()
    call("POST", "/predict", picture.tobytes())
    call("POST", "/predict", b"x")
    call("GET", "/../../etc/passwd")
    after = call("GET", "/metrics").body.decode()
    for line in (
        'fmnist_requests_total{code="200",route="/predict"}',
        'fmnist_requests_total{code="400",route="/predict"}',
        'fmnist_requests_total{code="404",route="none"}',
        "fmnist_batch_images_count",
    ):
        assert count(after, line) == count(before, line) + 1, line
    assert 'fmnist_model_info{sha256="' in after
    assert "fmnist_registry_up 1.0" in after
    assert "passwd" not in after


def test_a_log_line_is_json_and_cannot_be_broken_by_a_client(
    call: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "fmnist.serve")
    call("POST", '/predict\n{"level": "forged"}', b"", {"X-Request-Id": "a\nb"})
    (record,) = caplog.records
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line) | {"time": "", "id": "", "ms": 0} == {
        "time": "",
        "level": "info",
        "message": "request",
        "id": "",
        "route": "none",
        "status": 404,
        "ms": 0,
    }


def test_what_goes_well_is_logged_by_its_share(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "fmnist.serve")
    monkeypatch.setattr(module.random, "random", lambda: 0.4)
    for share, lines in {0.0: 0, 0.39: 0, 0.41: 1, 1.0: 2}.items():
        service.app.log_share = share
        asyncio.run(ask(service, "GET", "/status"))
        assert len(caplog.records) == lines


def test_json_of_arrays() -> None:
    import numpy as np

    assert as_json({"a": np.arange(3)}).body == b'{"a":[0,1,2]}'
