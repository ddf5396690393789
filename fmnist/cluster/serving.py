"""A service in replicas of Ray Serve, behind the same port on every machine that has one.

A replica is the whole service, made anew where it runs. Ray Serve starts as many as it is told or as requests ask for,
hands requests out among them, and replaces one that ends.
"""

import logging
import re
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from fmnist.cluster.connection import connected
from fmnist.cluster.telling import NAME, ReplicasLines, looked_after
from fmnist.errors import Failure, UserError, last_words
from fmnist.signals import hangup_counts

ONGOING = 8
"""Requests at the same time that one replica is enough for."""
GROW_SECONDS, SHRINK_SECONDS = 5, 60
"""For how long there must be more, or fewer, requests than the replicas are meant for."""
FIRST_LOOK_SECONDS = 300
"""For which a replica without a model takes no requests: a look may fetch one from afar. Then it begins again."""


@dataclass(frozen=True)
class Replicas:
    """How many there are to be."""

    least: int
    most: int

    @classmethod
    def of(cls, given: str) -> "Replicas":
        """`N` or `MIN..MAX`. Raises UserError."""
        found = re.fullmatch(r"(\d{1,4})(?:\.\.(\d{1,4}))?", given.strip())
        least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= least <= most:
            raise UserError(f"--replicas {given}", "is no number of replicas; give one from 1 on, or MIN..MAX")
        return cls(least, most)

    def options(self) -> dict[str, Any]:
        """Of the deployment."""
        if self.least == self.most:
            return {"num_replicas": self.least}
        bounds = {"min_replicas": self.least, "max_replicas": self.most, "target_ongoing_requests": ONGOING}
        return {"autoscaling_config": bounds | {"upscale_delay_s": GROW_SECONDS, "downscale_delay_s": SHRINK_SECONDS}}


class Keeper(Protocol):
    looked: bool
    model: Any
    trouble: str | None
    refusal: Any

    @property
    def absence(self) -> str: ...
    def start(self) -> None: ...


class Service(Protocol):
    """What a replica is."""

    @property
    def app(self) -> Any:
        """The ASGI application."""

    @property
    def keeper(self) -> Keeper: ...

    def close(self) -> None: ...


Make = Callable[[int], Service]
"""Makes the replica with this number on its machine; goes there as a pickle."""


class Replica:
    """What Ray Serve runs."""

    def __init__(self, make: Make) -> None:
        from ray import serve

        self._service = make(serve.get_replica_context().rank.local_rank)
        keeper = self._service.keeper
        keeper.start()
        until = time.monotonic() + FIRST_LOOK_SECONDS
        while not keeper.looked and time.monotonic() < until:
            time.sleep(0.02)  # a further replica gets no request before it has its model
        if keeper.model is None and (keeper.trouble or keeper.refusal or not keeper.looked):
            late = "" if keeper.looked else f" ({FIRST_LOOK_SECONDS} s are over)"
            raise RuntimeError(f"{keeper.absence}{late}")  # Ray Serve tries again; those that have one go on

    def __serve_build_asgi_app__(self) -> Any:
        app = self._service.app

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            async def send_on(message: Any) -> None:
                if message["type"] == "http.response.start":  # Ray Serve itself adds the request's id
                    message["headers"] = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                await send(message)

            await app(scope, receive, send_on)

        return answer

    def __del__(self) -> None:
        if hasattr(self, "_service"):
            self._service.close()


@dataclass(frozen=True)
class Front:
    """Where requests come in, on each machine."""

    host: str
    port: int
    idle: int
    """Seconds for which a connection that asks nothing is kept."""
    ongoing: int
    """Requests that one replica is handed at the same time, at most."""
    drain: float
    """Seconds for those who wait when a replica is to end."""


def serve_replicas(
    make: Make,
    replicas: Replicas,
    front: Front,
    address: str | None,
    ready: Callable[[], None],
    notice: Callable[[str], None],
) -> None:
    """Serve until a signal; `ready` is called once every replica answers. Raises UserError or Failure."""
    lines: Any = ReplicasLines(sys.stderr)
    least = replicas.least if address else replicas.most
    joined = connected(address, least, "--replicas", notice, logs=True)
    with redirect_stderr(lines), joined as cluster, hangup_counts():
        import ray.serve  # noqa: F401 - its import sets how much it logs

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        if cluster.address:
            _check_free(cluster.address)
        try:
            with looked_after(notice) as gone:
                _run(make, replicas, front)
                ready()
                with suppress(KeyboardInterrupt):
                    gone.wait()
            if gone.is_set():
                left = "does not answer any more; if it runs there, so does the service: serve shutdown ends it"
                raise Failure(f"Ray at {cluster.address}", left)
        finally:
            _end(alone=not cluster.address)


def _end(*, alone: bool) -> None:
    import ray
    from ray import serve

    if not ray.is_initialized():  # Ray Serve, asked now, would start another
        return
    with suppress(Exception, KeyboardInterrupt):  # it never came so far, or Ray is gone; whoever asks twice
        serve.delete(NAME)  # who waits for an answer gets it
    with suppress(Exception):
        alone = alone or (ray.is_initialized() and not set(serve.status().applications) - {NAME})
    if alone and ray.is_initialized():  # else others' would end with it
        serve.shutdown()


def _run(make: Make, replicas: Replicas, front: Front) -> None:
    from ray import serve

    quiet = {"enable_access_log": False, "log_level": "ERROR"}
    deployment = serve.deployment(serve.ingress()(Replica)).options(
        name=NAME,
        max_ongoing_requests=front.ongoing,
        graceful_shutdown_timeout_s=front.drain,
        graceful_shutdown_wait_loop_s=0.2,
        ray_actor_options={"num_cpus": 1},
        logging_config=quiet,
        **replicas.options(),
    )
    http = {"host": front.host, "port": front.port, "keep_alive_timeout_s": front.idle}
    try:
        serve.start(proxy_location="EveryNode", http_options=http, logging_config=quiet)
        serve.run(deployment.bind(make), name=NAME, route_prefix="/")
    except Exception as error:
        raise Failure("Ray Serve", f"does not start the service ({last_words(error)}); see Ray's logs") from error


def _check_free(address: str) -> None:
    """Raise Failure where Ray Serve is in use: its port is chosen once, by who comes first."""
    from ray import serve

    status = serve.status()
    if status.applications or status.proxies:
        running = ", ".join(sorted(status.applications)) or "nothing, at a port of its own,"
        raise Failure(f"Ray at {address}", f"serves {running} already; end that first: serve shutdown")
