"""What a request holds -> uint8 [N, 28, 28]."""

import asyncio
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fmnist.data.formats import SIDE
from fmnist.errors import UserError
from fmnist.imaging import open_picture, read_picture
from fmnist.serve.limits import Limits
from fmnist.serve.parts import JPEG, PNG, check_parts
from fmnist.serve.web import Refused

PIXELS = SIDE * SIDE
AT_ONCE, SMALL = 256 * 256, 16 << 10
"""Pixels and bytes of a picture that is decoded in the loop's thread: about a millisecond."""
_MAGIC = (PNG, JPEG, b"RIFF")
_pool = ThreadPoolExecutor(1, "pictures")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # our own limit is lower


def is_picture(content: bytes) -> bool:
    return content.startswith(_MAGIC)


async def from_pictures(files: list[tuple[str, bytes]], limits: Limits) -> NDArray[np.uint8]:
    """(name for messages, PNG, JPEG or WebP) -> uint8 [N, 28, 28]. Raises Refused."""
    if len(files) > limits.images:
        raise Refused(413, f"{len(files):,} pictures: {limits.images:,} at most fit into a request; send several")
    images = [await _decoded(name, content, limits, apart=len(files) > 1) for name, content in files]
    return np.stack(images) if len(images) > 1 else images[0][None]


async def _decoded(name: str, content: bytes, limits: Limits, *, apart: bool) -> NDArray[np.uint8]:
    if apart:
        await asyncio.sleep(0)  # others are answered between two pictures
    in_thread = partial(asyncio.get_running_loop().run_in_executor, _pool)
    try:
        check_parts(content, name)
        is_small = len(content) <= SMALL
        picture = open_picture(content, name) if is_small else await in_thread(open_picture, content, name)
        pixels = picture.width * picture.height
        if pixels > limits.pixels:
            raise Refused(413, f"{name}: has {pixels:,} pixels; give {limits.pixels:,} at most")
        if is_small and pixels <= AT_ONCE:
            return read_picture(picture, name)
        return await in_thread(read_picture, picture, name)
    except UserError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):  # Pillow's own limit, some 180 million pixels
            raise Refused(413, f"{name}: has too many pixels; give {limits.pixels:,} at most") from error
        raise Refused(400, str(error)) from error


def from_bytes(content: bytes, limits: Limits) -> NDArray[np.uint8]:
    """784 bytes an image. Raises Refused."""
    count, rest = divmod(len(content), PIXELS)
    if rest or not count:
        raise Refused(
            400, f"the body: has {len(content):,} bytes; give a PNG, JPEG or WebP, or {PIXELS} bytes an image"
        )
    _check_count(count, limits)
    return np.frombuffer(content, np.uint8).reshape(count, SIDE, SIDE)


def from_numbers(values: Any, limits: Limits, name: str = "inputs") -> NDArray[np.uint8]:
    """Numbers 0 to 255, as [28][28], [784], [N][28][28] or [N][784] -> uint8 [N, 28, 28]. Raises Refused."""
    if type(values) is list and len(values) == PIXELS and type(values[0]) is int:
        try:  # the usual request, the quick way: bytes() takes whole numbers from 0 to 255 alone
            return np.frombuffer(bytes(values), np.uint8).reshape(1, SIDE, SIDE)
        except (ValueError, TypeError):
            pass
    leaves, shape = _flattened(values, name)
    if not leaves or not set(map(type, leaves)) <= {int, float}:  # before numpy makes room for the longest text
        raise Refused(400, f"{name}: holds something other than numbers; {_WANTED}")
    array = np.array(leaves).reshape(shape)
    if array.dtype.kind == "O":  # no 64 bits hold them all
        array = array.astype(np.float64)
    if array.shape in ((PIXELS,), (SIDE, SIDE)):
        array = array[None]
    if array.ndim < 2 or array.shape[1:] not in ((PIXELS,), (SIDE, SIDE)):
        raise Refused(400, f"{name}: has the shape {list(array.shape)}; {_WANTED}")
    _check_count(len(array), limits)
    return whole_numbers(array, name).reshape(-1, SIDE, SIDE)


def _flattened(values: Any, name: str) -> tuple[list[Any], list[int]]:
    """What the lists hold, and their lengths, three levels down at most. Raises Refused."""
    leaves, shape = values, [len(values)] if isinstance(values, list) else []
    if not shape:
        return [], shape
    while len(shape) < 3 and leaves and isinstance(leaves[0], list):
        lengths = {len(each) if isinstance(each, list) else -1 for each in leaves}
        if len(lengths) > 1:
            raise Refused(400, f"{name}: its lists are of different lengths; {_WANTED}")
        shape += lengths
        leaves = list(chain.from_iterable(leaves))
    return leaves, shape


def whole_numbers(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Any numbers that are whole and from 0 to 255 -> uint8. Raises Refused."""
    with np.errstate(invalid="ignore"):
        bytes_ = array.astype(np.uint8)
        if not (bytes_ == array).all():
            wrong = array[bytes_ != array].flat[0]
            raise Refused(400, f"{name}: holds {wrong}; give whole numbers from 0 to 255, 0 is the background")
    return bytes_


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.images:
        raise Refused(413, f"{count:,} images: {limits.images:,} at most fit into a request; send several")


_WANTED = f"give whole numbers from 0 to 255, {SIDE}x{SIDE} or {PIXELS} an image"
