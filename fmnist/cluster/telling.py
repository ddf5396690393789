"""What is told while replicas serve: their own log lines, and what Ray Serve says of those that do not come up."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from fmnist.errors import one_line

NAME = "fmnist"
"""Of the application in Ray Serve."""
SCALES = ("Upscaling from ", "Downscaling from ")
"""What Ray Serve says where all is well."""
LOOK_SECONDS = 10
"""Between two looks at how the replicas are."""


class ReplicasLines:
    """A stderr that replicas' log lines reach as they wrote them; what Ray itself says there is left out."""

    _PREFIX = re.compile(r"(?:\x1b\[\d+m)*\((\w+)[^)]*\)(?:\x1b\[\d+m)* ")
    """As Ray puts it before each line: (ServeReplica:… pid=…)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._dropping = stream, False

    def write(self, text: str) -> int:
        if found := self._PREFIX.match(text):
            self._dropping = found[1] != "ServeReplica"
        if not self._dropping:
            self._stream.write(text[found.end() :] if found else text)
        if text.endswith("\n"):
            self._dropping = False
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def looked_after(notice: Callable[[str], None]) -> Iterator[threading.Event]:
    """Tell what Ray Serve says of replicas that do not come up: once one answers, it waits for the others for ever.

    Gives an event: Ray is gone.
    """
    import ray
    from ray import serve

    over, gone = threading.Event(), threading.Event()

    def look() -> None:
        told = ""
        while not over.wait(LOOK_SECONDS):
            if not ray.is_initialized():
                gone.set()
                return
            with suppress(Exception):  # it isn't there yet, or away
                ray.put(None)  # Ray's client takes itself for connected until it has sent something in vain
                (found,) = serve.status().applications[NAME].deployments.values()
                if found.message and found.message != told and not found.message.startswith(SCALES):
                    notice(f"replicas: {one_line(found.message)[-300:]}")
                told = found.message

    looking = threading.Thread(target=look, name="replicas", daemon=True)
    looking.start()
    try:
        yield gone
    finally:
        over.set()
        looking.join(LOOK_SECONDS)
