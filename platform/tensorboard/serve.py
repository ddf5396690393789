"""TensorBoard behind a list of the names under which it may be asked.

It answers whatever `Host` a browser is made to send, so that a page of a stranger, whose own name is pointed at this
machine (DNS rebinding), could read every run. Here such a request gets 403.
"""

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from absl import app
from tensorboard import default, main_lib, program

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def allowed_hosts(port: str, further: str) -> set[str]:
    """As a `Host` header has them."""
    names = [name.strip().lower() for name in further.split(",") if name.strip()]
    return {"tensorboard:6006", *names, *(f"{name}:{port}" for name in ["localhost", "127.0.0.1", *names])}


def guarded(tensorboard: Wsgi, allowed: set[str]) -> Wsgi:
    """Turns away what was sent to another name."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "").lower()
        if host in allowed:
            return tensorboard(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"Host {host!a}: is not known here; add it to ALLOWED_HOSTS in .env, and make start\n".encode()]

    return answer


def main() -> None:
    allowed = allowed_hosts(os.environ["PUBLISHED_PORT"], os.environ["ALLOWED_HOSTS"])
    main_lib.global_init()
    tensorboard = program.TensorBoard(
        default.get_plugins(),
        server_class=lambda wsgi, flags: program.WerkzeugServer(guarded(wsgi, allowed), flags),
    )
    app.run(tensorboard.main, argv=sys.argv, flags_parser=tensorboard.configure)


if __name__ == "__main__":
    main()
