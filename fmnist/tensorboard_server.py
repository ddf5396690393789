"""TensorBoard behind a list of the names under which it may be asked: a script, in `fmnist up` and in its container.

It answers whatever `Host` a browser is made to send, so that a page of a stranger, whose own name is pointed at this
machine (DNS rebinding), could read every run. Here such a request gets 403.
"""

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def allowed_hosts(names: str, port: str) -> set[str]:
    """As a `Host` header has them. `names`: further ones than this machine's own, with commas."""
    further = [name.strip().lower() for name in names.split(",") if name.strip()]
    known = ["localhost", "127.0.0.1", "[::1]", *further]
    return {*known, *(f"{name}:{port}" for name in known)}  # browsers leave the usual port out


def guarded(tensorboard: Wsgi, allowed: set[str]) -> Wsgi:
    """Turns away what was sent to another name."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "").lower()
        if host in allowed or "*" in allowed:
            return tensorboard(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        told = "is not known here; see ALLOWED_HOSTS in docs/platform.md, docs/settings.md"
        return [f"Host {host!a}: {told}\n".encode()]

    return answer


def main() -> None:
    """TensorBoard's own flags; the names and the port of browsers come from the environment."""
    from absl import app
    from tensorboard import default, main_lib, program

    allowed = allowed_hosts(os.environ["ALLOWED_HOSTS"], os.environ["PUBLISHED_PORT"])
    main_lib.global_init()
    tensorboard = program.TensorBoard(
        default.get_plugins(),
        server_class=lambda wsgi, flags: program.WerkzeugServer(guarded(wsgi, allowed), flags),
    )
    app.run(tensorboard.main, argv=sys.argv, flags_parser=tensorboard.configure)


if __name__ == "__main__":
    main()
