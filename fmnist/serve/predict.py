"""`POST /predict`: pictures in any of the forms in which people have them, answers with names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from fmnist.serve.batcher import Batcher
from fmnist.serve.limits import Limits
from fmnist.serve.model import Model
from fmnist.serve.pictures import from_bytes, from_numbers, from_pictures, is_picture
from fmnist.serve.web import JSON, Refused, Request, Response, as_json, parse_json

TOP = 3
RAW = (b"application/octet-stream", b"", b"application/x-www-form-urlencoded")
"""The last is what curl's --data-binary says by itself."""


class Predict:
    """The route's handler."""

    def __init__(self, batcher: Batcher, limits: Limits, model_name: str) -> None:
        self._batcher, self._limits, self._name = batcher, limits, model_name

    async def __call__(self, request: Request) -> Response:
        top, show = self._asked(request)
        images = await self._images(request)
        if show and len(images) > self._limits.shown:
            raise Refused(400, f"image=1: is for {self._limits.shown} images at most, here are {len(images):,}")
        model, rows = await self._batcher.answer(images)
        answers = self._answers(model, rows, top)
        if show:
            for answer, image in zip(answers, images, strict=True):
                answer["image"] = image.tolist()
        about = {"name": self._name, "version": model.version}
        return as_json({"id": request.id, "model": about, "predictions": answers})

    @staticmethod
    def _asked(request: Request) -> tuple[int, bool]:
        if not request.query:
            return TOP, False
        given = request.parameters()
        top, show = given.pop("top", str(TOP)), given.pop("image", "0")
        if not (top.isascii() and top.isdigit() and len(top) <= 4 and 1 <= int(top) <= 1000):
            raise Refused(400, f"top={top[:20]}: is no number of classes; give one from 1 to 1000")
        if show not in ("0", "1", "false", "true"):
            raise Refused(400, f"image={show[:20]}: is neither true nor false; give image=1 for what the model saw")
        if given:
            raise Refused(400, f"{next(iter(given))[:40]}: is no parameter; there are top and image")
        return int(top), show in ("1", "true")

    async def _images(self, request: Request) -> NDArray[np.uint8]:
        body, kind, limits = request.body, request.content_type, self._limits
        if not body:
            raise Refused(400, 'the body: is empty; send a picture, 784 bytes an image, or JSON {"inputs": …}')
        if kind == JSON:
            return from_numbers(_inputs(parse_json(body)), limits)
        if kind == b"multipart/form-data":
            return await from_pictures(parse_multipart(request.headers[b"content-type"], body, limits), limits)
        if kind.startswith(b"image/") or (kind in RAW and is_picture(body)):
            return await from_pictures([("the picture", body)], limits)
        if kind in RAW:
            return from_bytes(body, limits)
        shown = kind[:40].decode("latin-1")
        raise Refused(415, f"Content-Type {shown!a}: is not known; send image/*, application/json, multipart/form-data")

    @staticmethod
    def _answers(model: Model, rows: NDArray[np.float32], top: int) -> list[dict[str, Any]]:
        names, values = model.class_names, rows.astype(np.float64).round(6).tolist()
        best = (-rows).argsort(axis=1, kind="stable")[:, :top].tolist()
        return [_answer(names, *each) for each in zip(values, best, strict=True)]


def _answer(names: Sequence[str], values: Sequence[float], best: Sequence[int]) -> dict[str, Any]:
    """`best`: the likeliest classes, in their order."""
    return {
        "label": names[best[0]],
        "probability": values[best[0]],
        "top": [{"label": names[i], "probability": values[i]} for i in best],
        "probabilities": dict(zip(names, values, strict=True)),
    }


def _inputs(content: Any) -> Any:
    if not isinstance(content, dict) or "inputs" not in content:
        raise Refused(400, 'the body: has no inputs; give {"inputs": …}, 28x28 or 784 whole numbers an image')
    if len(content) > 1:
        other = next(name for name in content if name != "inputs")
        raise Refused(400, f"{other[:40]}: is not known here; give inputs alone")
    return content["inputs"]


def parse_multipart(content_type: bytes, body: bytes, limits: Limits) -> list[tuple[str, bytes]]:
    """The files of a form -> (name for messages, content). Fields that are no files are left out. Raises Refused."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refused(400, "Content-Type multipart/form-data: has no boundary; let your client set it")
    form = _Form(limits)
    try:
        parser = MultipartParser(boundary, form.callbacks)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, f"the form: is damaged ({str(error)[:80]}); send it whole") from error
    if not form.files:
        raise Refused(400, "the form: holds no file; send pictures as files")
    return form.files


class _Form:
    """What the parser finds, kept: `files` are (name for messages, content)."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parts = 0
        self.files: list[tuple[str, bytes]] = []
        self.callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, stop: self._header.extend(data[start:stop]),
            "on_header_value": lambda data, start, stop: self._value.extend(data[start:stop]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, stop: self._content.extend(data[start:stop]),
            "on_part_end": self._end,
        }
        self._begin()

    def _begin(self) -> None:
        self._name: bytes | None = None  # of a file
        self._header, self._value, self._content = bytearray(), bytearray(), bytearray()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._name = parse_options_header(bytes(self._value))[1].get(b"filename")
        self._header, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        if self._name is not None:
            shown = self._name.decode("utf-8", "replace")[:60]
            self.files.append((f"picture {len(self.files) + 1} ({shown!a})", bytes(self._content)))
        self._parts += 1
        if self._parts > self._limits.images:
            raise Refused(413, f"more than {self._limits.images:,} parts: do not fit into a request; send several")
