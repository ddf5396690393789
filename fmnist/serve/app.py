"""The service as an ASGI application: finds the route, guards it, reads the request, answers, counts, logs."""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from fmnist.serve.batcher import RETRY
from fmnist.serve.guard import HEADERS, Guard, Ids
from fmnist.serve.limits import Limits
from fmnist.serve.metrics import IN_FLIGHT, count
from fmnist.serve.web import (
    Deadlines,
    Disconnected,
    Receive,
    Refused,
    Request,
    Response,
    Route,
    Router,
    Routes,
    Scope,
    Send,
    problem,
    read_body,
)

log = logging.getLogger("fmnist.serve")
_LATE_BODY = Refused(408, "the body: took too long to arrive; send it at once", ((b"connection", b"close"),))
_LATE_ANSWER = Refused(503, "the answer: took too long; try again in a second, or send less at once", RETRY)
_NOWHERE = Route(None, "none", problem, protected=False)  # type: ignore[arg-type]


@dataclass
class App:
    """Stateless but for counts."""

    routes: Routes
    guard: Guard
    limits: Limits = field(default_factory=Limits)
    log_share: float = 0.0
    """Of the requests that go well, the share that is logged; those that don't are all logged."""

    def __post_init__(self) -> None:
        self._router, self._ids, self._in_flight = Router(self.routes), Ids(), 0
        IN_FLIGHT.set_function(lambda: self._in_flight)
        self._deadlines = Deadlines(self.limits.seconds)
        self._refused, self._told = 0, 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        request = Request(scope["method"], scope["path"], scope["query_string"], headers, self._ids.of(headers))
        self._in_flight += 1
        try:
            route, response = await self._response(request, receive)
        except Disconnected:
            return
        finally:
            self._in_flight -= 1
        await _send(send, response, request)
        self._count(route, request, response, time.perf_counter() - started)

    async def _response(self, request: Request, receive: Receive) -> tuple[Route, Response]:
        route, limits = _NOWHERE, self.limits
        try:
            route, request.captured = self._router.find(request.method, request.path)
            self.guard.check(request.headers, request.method, route.protected)
            if self._in_flight > limits.requests and route.protected:
                await self._hold()
                raise Refused(503, f"{limits.requests} requests are being answered; try again in a second", RETRY)
            if request.method not in ("GET", "HEAD"):
                with self._deadlines.begin(_LATE_BODY):
                    request.body = await read_body(request.headers, receive, limits.body)
            with self._deadlines.begin(_LATE_ANSWER):
                return route, await route.handle(request)
        except Refused as refused:
            refuse = self._router.form(request.path) if route is _NOWHERE else route.refuse
            return route, refuse(refused, request.id)
        except Disconnected:
            raise
        except Exception:
            log.exception("a request failed", extra={"id": request.id, "route": route.name})
            return route, route.refuse(
                Refused(500, "the service failed here; its log says more, by the id"), request.id
            )

    def _count(self, route: Route, request: Request, response: Response, seconds: float) -> None:
        count(route.name, response.status, seconds)
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self._count_refused()
        elif response.status >= 400 or random.random() < self.log_share:
            about = {"id": request.id, "route": route.name, "status": response.status, "ms": round(seconds * 1000, 2)}
            log.info("request", extra=about)

    async def _hold(self) -> None:
        """Refuse a moment later: who asks again at once would take from answers the time that refusing takes."""
        self._in_flight -= 1
        try:
            await asyncio.sleep(self.limits.hold)
        finally:
            self._in_flight += 1

    def _count_refused(self) -> None:
        """A crowd that is turned away would fill the log, and the log's lines take time from answers: one a second."""
        self._refused += 1
        now = time.monotonic()
        if now - self._told > 1:
            log.warning("requests refused with 503", extra={"count": self._refused})
            self._refused, self._told = 0, now


async def _send(send: Send, response: Response, request: Request) -> None:
    headers: Sequence[tuple[bytes, bytes]] = (
        (b"content-type", response.content_type),
        *(() if response.status == 304 else ((b"content-length", b"%d" % len(response.body)),)),
        (b"cache-control", response.cache),
        (b"x-request-id", request.id.encode()),
        *HEADERS,
        *response.headers,
    )
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    body = b"" if request.method == "HEAD" else response.body
    await send({"type": "http.response.body", "body": body})
