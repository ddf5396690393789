"""What of HTTP the protocols need, on bare ASGI: a request read within limits, an answer, a refusal."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = b"application/json"
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


@dataclass(slots=True)
class Request:
    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    """Names in lower case; of a header that came twice, the last."""
    id: str
    body: bytes = b""
    captured: dict[str, str] = field(default_factory=dict)
    """Parts of the path: `{name}` of the route."""

    @property
    def content_type(self) -> bytes:
        """Without parameters, in lower case; empty where there is none."""
        return self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()

    def parameters(self) -> dict[str, str]:
        """Of the query. Raises Refused."""
        try:
            return dict(parse_qsl(self.query.decode("ascii"), keep_blank_values=True, max_num_fields=20))
        except ValueError as error:
            raise Refused(400, "the query: can't be read; give name=value pairs") from error


class Response(NamedTuple):
    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    cache: bytes = b"no-store"
    """Whether a client may keep it: `cache-control`."""


class Refused(Exception):
    """A request that gets no answer, and why; each protocol says it in its own form."""

    def __init__(self, status: int, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


class Disconnected(Exception):
    """The client went away before its request was whole."""


def as_json(value: Any, status: int = 200) -> Response:
    return Response(status, orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))


def problem(refused: Refused, request_id: str) -> Response:
    """RFC 9457."""
    title = HTTPStatus(refused.status).phrase
    about = {
        "type": "about:blank",
        "title": title,
        "status": refused.status,
        "detail": refused.detail,
        "id": request_id,
    }
    return Response(refused.status, orjson.dumps(about), b"application/problem+json", refused.headers)


def parse_json(body: bytes) -> Any:
    """Raises Refused for what is no JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body: is no JSON ({str(error)[:100]}); mend it") from error


async def read_body(headers: dict[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The whole body, unpacked if it is gzip or deflate; `limit` bytes at most before and after. Raises Refused."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise Disconnected
    if message.get("more_body"):
        parts, size = [body], len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise _too_large(limit)
        body = b"".join(parts)
    if len(body) > limit:
        raise _too_large(limit)
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    return body if encoding == b"identity" else unpacked(body, encoding, limit)


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the body: is more than {limit:,} bytes; send less at once", ((b"connection", b"close"),))


def unpacked(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Raises Refused for another encoding, damaged data, or more than `limit` bytes."""
    if encoding not in (b"gzip", b"x-gzip", b"deflate"):
        raise Refused(
            415, f"Content-Encoding {encoding[:20].decode('latin-1')!a}: is not known; send gzip, deflate or none"
        )
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        content = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused(400, f"the body: is damaged {encoding.decode()}; send it whole") from error
    if len(content) > limit:
        raise _too_large(limit)
    if unpacker.unused_data:
        raise Refused(400, f"the body: more follows where its {encoding.decode()} ends; send it in one piece")
    if not unpacker.eof:
        raise Refused(400, f"the body: its {encoding.decode()} ends too early; send it whole")
    return content


class Route(NamedTuple):
    handle: Callable[[Request], Awaitable[Response]]
    name: str
    """What metrics call it."""
    refuse: Callable[[Refused, str], Response] = problem
    """(why, request id) -> how its protocol says so."""
    protected: bool = True
    """Whether an API key is asked for, where there is one."""


Routes = dict[tuple[str, str], Route]
"""(method, path) -> route; `{name}` in a path stands for one part of it."""


class Router:
    """Finds the route of a request: known paths by one look, patterns by trying them."""

    def __init__(self, routes: Routes) -> None:
        self._exact = {key: route for key, route in routes.items() if "{" not in key[1]}
        self._patterns = [(method, path.split("/"), route) for (method, path), route in routes.items() if "{" in path]
        self._forms = {path.split("/")[1]: route.refuse for (_, path), route in routes.items()}

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Raises Refused: 404, or 405 with what is allowed."""
        if route := self._exact.get((method, path)):
            return route, {}
        parts = path.split("/")
        for allowed, pattern, route in self._patterns:
            if allowed == method and (captured := _match(pattern, parts)) is not None:
                return route, captured
        methods = {allowed for allowed, known in self._exact if known == path}
        methods |= {allowed for allowed, pattern, _ in self._patterns if _match(pattern, parts) is not None}
        if methods:
            allow = ", ".join(sorted(methods))
            raise Refused(405, f"{method[:20]}: is not for this path; use {allow}", ((b"allow", allow.encode()),))
        raise Refused(404, f"the path {path[:80]!a}: there is nothing; see /docs")

    def form(self, path: str) -> Callable[[Refused, str], Response]:
        """How the routes with the same first part refuse: what isn't there is told as the clients of those read it."""
        return self._forms.get(path.split("/")[1] if "/" in path else "", problem)


def _match(pattern: list[str], parts: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    captured = {}
    for wanted, given in zip(pattern, parts, strict=True):
        if wanted.startswith("{") and given:
            captured[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return captured


class Deadlines:
    """Ends what takes too long, all by one timer: one for each request would cost as much as reading it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: dict[Deadline, float] = {}
        """The oldest first -> when it ends, by the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, late: Refused) -> "Deadline":
        """`with` it: what is awaited therein takes `seconds` at most, or `late` is raised."""
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        if self._loop is not loop:
            self._loop, self._running, self._timer = loop, {}, None
        deadline = Deadline(self._running, task, late)
        self._running[deadline] = end = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(end, self._end_late)
        return deadline

    def _end_late(self) -> None:
        self._timer = None
        assert self._loop is not None
        for deadline, end in list(self._running.items()):
            if end > self._loop.time():
                self._timer = self._loop.call_at(end, self._end_late)
                return
            deadline.passes()


class Deadline:
    """Of one request."""

    __slots__ = ("_cancelling", "_late", "_passed", "_running", "_task")

    def __init__(self, running: dict["Deadline", float], task: asyncio.Task[Any], late: Refused) -> None:
        self._running, self._task, self._late = running, task, late
        self._passed, self._cancelling = False, task.cancelling()

    def passes(self) -> None:
        del self._running[self]
        self._passed = True
        self._task.cancel()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._running.pop(self, None)
        if self._passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._late from None
