"""How much, for how long and for how many at once the service works."""

import asyncio
import gzip
import logging
import socket
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fmnist.serve import server
from fmnist.serve.batcher import FEW
from fmnist.serve.limits import Limits
from fmnist.serve.server import MOST_UNREAD, UNREAD_SECONDS
from fmnist.serve.service import Service
from fmnist.serve.web import Route

from ..helpers import asgi_server, until
from .conftest import ListSource, ask, make_service

HOST = [(b"host", b"localhost")]


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"x" * 2001, {}, 413, "the body: is more than 2,000 bytes; send less at once"),
        (b"x", {"Content-Length": "2001"}, 413, "the body: is more than 2,000 bytes"),
        ([b"x" * 1500, b"x" * 1500], {}, 413, "the body: is more than 2,000 bytes"),
        (gzip.compress(bytes(10**7)), {"Content-Encoding": "gzip"}, 413, "the body: is more than 2,000 bytes"),
        (b"no gzip at all", {"Content-Encoding": "gzip"}, 400, "the body: is damaged gzip"),
        (gzip.compress(bytes(784))[:-12], {"Content-Encoding": "gzip"}, 400, "the body: its gzip ends too early"),
        (gzip.compress(bytes(784)) * 2, {"Content-Encoding": "gzip"}, 400, "the body: more follows where its"),
        (b"x", {"Content-Encoding": "br"}, 415, "Content-Encoding 'br': is not known"),
    ],
)
def test_limits_hold_before_anything_is_decoded(
    source: ListSource, body: Any, headers: dict[str, str], status: int, said: str
) -> None:
    small = make_service(source, Limits(body=2000))
    reply = asyncio.run(ask(small, "POST", "/predict", body, headers))
    assert reply.status == status
    assert reply.json["detail"].startswith(said)


def test_a_slow_body_and_a_slow_answer_get_their_time_and_no_more(source: ListSource, picture: Any) -> None:
    service = make_service(source, Limits(seconds=0.05))

    async def never() -> Any:
        await asyncio.sleep(60)

    async def slowly() -> Any:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": HOST}
        await service.app(scope, never, send)
        return sent[0]["status"]

    assert asyncio.run(slowly()) == 408
    service.app.routes["POST", "/predict"] = Route(lambda request: never(), "/predict")
    service.app.__post_init__()
    reply = asyncio.run(ask(service, "POST", "/predict", picture.tobytes()))
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")


def test_past_so_many_requests_at_once_the_next_is_told_to_come_back(source: ListSource, picture: Any) -> None:
    service = make_service(source, Limits(requests=3))

    async def five() -> list[int]:
        asked = (ask(service, "POST", "/predict", picture.tobytes()) for _ in range(5))
        return [reply.status for reply in await asyncio.gather(*asked)]

    assert asyncio.run(five()) == [200, 200, 200, 503, 503]
    assert asyncio.run(five()).count(200) == 3  # those that were refused left nothing behind


def test_who_waits_for_a_refusal_keeps_nobody_from_an_answer(source: ListSource, picture: Any) -> None:
    service = make_service(source, Limits(requests=1, hold=60))

    async def several() -> list[Any]:
        first, *held = [asyncio.create_task(ask(service, "POST", "/predict", picture.tobytes())) for _ in range(3)]
        statuses = [(await first).status, (await ask(service, "POST", "/predict", picture.tobytes())).status]
        waiting = [not task.done() for task in held]
        for task in held:  # that they get a 503 at last, the test above shows
            task.cancel()
        return [*statuses, *waiting]

    assert asyncio.run(several()) == [200, 200, True, True]


def test_the_limits_are_those_of_the_page() -> None:
    page, of = (Path(__file__).parents[2] / "docs" / "service.md").read_text(), Limits()
    for told in (f"{of.body >> 20} MiB", f"{of.pixels // 10**6} million", f"{of.images:,}", f"{of.seconds} s each"):
        assert f"| {told} |" in page
    assert f"| {of.queue:,}; {of.requests}; past either" in page and f"| {of.drain} s |" in page
    assert f"for more than {FEW};" in page and f"| {of.shown} |" in page
    assert f"| {UNREAD_SECONDS:.0f} s; {MOST_UNREAD >> 20} MiB |" in page


def test_an_answer_that_nobody_reads_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UNREAD_SECONDS", 5)
    monkeypatch.setattr(server, "MOST_UNREAD", 40 << 20)
    answer = bytes(32 << 20)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})

    with asgi_server(app, http=server.Connection, loop="uvloop") as port, ExitStack() as asking:
        clients = [asking.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)) for _ in range(4)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: server.Connection.unread)
        until(lambda: not server.Connection.unread)
        for client in clients:
            assert sum(map(len, iter(partial(received, client), b""))) < len(answer)


def received(client: socket.socket) -> bytes:
    try:
        return client.recv(1 << 20)
    except ConnectionResetError:
        return b""


def test_a_crowd_that_is_refused_is_one_line_in_the_log(
    source: ListSource, picture: Any, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service(source, Limits(requests=1, hold=0))
    caplog.set_level(logging.INFO, "fmnist.serve")

    async def crowd() -> None:
        await asyncio.gather(*(ask(service, "POST", "/predict", picture.tobytes()) for _ in range(50)))

    began = time.monotonic()
    asyncio.run(crowd())
    told = [record for record in caplog.records if "refused" in record.message]
    assert (told[0].message, told[0].count) == ("requests refused with 503", 1)  # type: ignore[attr-defined]
    assert len(told) <= 1 + (time.monotonic() - began)  # one a second


def test_a_client_that_goes_away_in_mid_body_gets_nothing_and_harms_nobody(service: Service, picture: Any) -> None:
    async def cut() -> list[Any]:
        events = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
        sent: list[Any] = []

        async def receive() -> Any:
            return events.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": HOST}
        await service.app(scope, receive, send)
        return sent

    assert asyncio.run(cut()) == []
    assert asyncio.run(ask(service, "POST", "/predict", picture.tobytes())).status == 200
