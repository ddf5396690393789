"""The page for people, the page of the API, and the test images that both offer; read once, kept in memory.

`page/samples.png` is six test images of each class, in the order of the classes: every 160th, from the 80th on.

    test = load_data().test
    chosen = np.concatenate([np.flatnonzero(test.labels == label)[80:1000:160] for label in range(10)])
    Image.fromarray(test.images[chosen].reshape(-1, 28)).save("fmnist/serve/page/samples.png", optimize=True)
"""

import gzip
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from fmnist.data.formats import SIDE
from fmnist.serve.openapi import document
from fmnist.serve.web import JSON, Refused, Request, Response, Route, Routes

FOLDER = Path(__file__).with_name("page")
TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}


class Fixed:
    """A handler that always answers the same: whole, gzipped, or that it has not changed."""

    def __init__(self, content: bytes, content_type: bytes) -> None:
        tag = b'"' + hashlib.sha256(content).hexdigest()[:16].encode() + b'"'
        about = ((b"etag", tag), (b"vary", b"accept-encoding"))
        packed = gzip.compress(content, mtime=0)
        self._tag = tag
        asked_each_time = b"no-cache"
        self._whole = Response(200, content, content_type, about, asked_each_time)
        zipped = (*about, (b"content-encoding", b"gzip"))
        self._packed = Response(200, packed, content_type, zipped, asked_each_time)
        self._same = Response(304, b"", content_type, about, asked_each_time)

    async def __call__(self, request: Request) -> Response:
        if self._tag in request.headers.get(b"if-none-match", b""):
            return self._same
        return self._packed if b"gzip" in request.headers.get(b"accept-encoding", b"") else self._whole


class Samples:
    """The test images, for who has none at hand."""

    def __init__(self, path: Path = FOLDER / "samples.png") -> None:
        with Image.open(path, formats=("PNG",)) as sheet:
            self.images: NDArray[np.uint8] = np.asarray(sheet).reshape(-1, SIDE, SIDE)

    async def one(self, request: Request) -> Response:
        """As a PNG. Raises Refused."""
        number, last = request.captured["number"], len(self.images) - 1
        if not (number.isascii() and number.isdigit() and len(number) < 8 and int(number) <= last):
            raise Refused(404, f"the test image {number[:20]!a}: there is no such; give a number from 0 to {last}")
        file = io.BytesIO()
        Image.fromarray(self.images[int(number)]).save(file, "PNG")
        return Response(200, file.getvalue(), b"image/png")


def page_routes(model_name: str) -> Routes:
    """The pages and what they load. None of it asks for a key: a browser that goes to a page can give none.

    Raises OSError where the package is not whole.
    """
    samples = Samples()
    found = {
        path.name: Fixed(path.read_bytes(), TYPES[path.suffix]) for path in FOLDER.iterdir() if path.suffix in TYPES
    }
    handlers: dict[str, Any] = {
        "/": found.pop("index.html"),
        "/docs": found.pop("docs.html"),
        "/openapi.json": Fixed(orjson.dumps(document(model_name, found)), JSON),
        "/samples": Fixed(samples.images.tobytes(), b"application/octet-stream"),
        "/samples/{number}": samples.one,
    }
    routes = {path: Route(handler, path, protected=False) for path, handler in handlers.items()}
    routes |= {f"/page/{name}": Route(file, "/page", protected=False) for name, file in found.items()}
    return {(method, path): route for path, route in routes.items() for method in ("GET", "HEAD")}
