"""`fmnist serve`: the service on a port, until a signal; who waits for an answer then gets it."""

import asyncio
import signal
import sys
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fmnist.serve.limits import Limits
from fmnist.serve.logs import log_as_json
from fmnist.serve.service import Service
from fmnist.signals import ENDING

IDLE_SECONDS = 75
"""For which a connection that asks nothing is kept."""
LEAVE_SECONDS = 0.5
"""Between "not ready" and the end of listening: whoever sends traffic here is to notice."""
UNREAD_SECONDS, MOST_UNREAD = 60.0, 128 << 20
"""For which an answer is kept that nobody reads, and how many bytes of them."""


class Connection(HttpToolsProtocol):
    """uvicorn's, which ends where its answer is not read: else that would be kept for as long as the peer likes."""

    unread: ClassVar[dict["Connection", asyncio.TimerHandle]] = {}

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread[self] = self.loop.call_later(UNREAD_SECONDS, self._end)
        while len(self.unread) > 1 and sum(each.waiting for each in self.unread) > MOST_UNREAD:
            next(iter(self.unread))._end()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    @property
    def waiting(self) -> int:
        """Bytes."""
        return int(self.transport.get_write_buffer_size())

    def _forget(self) -> None:
        if late := self.unread.pop(self, None):
            late.cancel()

    def _end(self) -> None:
        self._forget()
        self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn's, which says that it isn't ready any more before it stops listening."""

    def __init__(self, service: Service, host: str, port: int) -> None:
        self._service = service
        limits: Limits = service.limits
        super().__init__(
            uvicorn.Config(
                service.app,
                host=host,
                port=port,
                loop="uvloop",
                http=Connection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=int(limits.drain),
                backlog=1024,
            )
        )

    async def shutdown(self, sockets: Any = None) -> None:
        self._service.draining = True
        await asyncio.sleep(LEAVE_SECONDS)
        await super().shutdown(sockets)


def serve(service: Service, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    log_as_json()
    for number in ENDING:  # uvicorn's own handlers end it, and then raise the signal again
        signal.signal(number, lambda *_: sys.exit(0))
    service.keeper.start()
    try:
        Server(service, host, port).run()
    finally:
        service.close()
