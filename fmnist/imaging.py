"""Any picture -> what the model was trained on: a 28x28 grey garment, light on black.

The steps are those that made Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747, section 2): trim
to the garment, shrink the longer side to 28 pixels, extend to a square, negate, make grey.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fmnist.data.formats import SIDE, is_idx, parse_idx, read_bytes
from fmnist.errors import UserError, one_line

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 50_000_000
ORIENTATION = ExifTags.Base.Orientation
_BACKGROUND_TOLERANCE = 0.08
"""How far a grey value may lie from the border's, as a share of the whole range, and still be background."""


def to_model_image(picture: Image.Image) -> NDArray[np.uint8]:
    """A picture of any size and mode -> uint8 [28, 28], 0 is the background.

    - Grey: transparency is laid over white, colours become luminance; a photo is turned as its EXIF says.
    - A grey picture of 28x28 with a dark border is taken as it is: it is one of the data set's own.
    - Polarity: where the border is light, the picture is negated, so that the background is dark.
    - Crop: rows and columns that hold nothing but background are trimmed.
    - Square: the longer side becomes 28 pixels, and the shorter is centred on black.
    """
    picture.load()
    if (own := _as_it_is(picture)) is not None:
        return own
    grey = _grey(picture)
    level = _border_level(grey)
    if level >= 128:
        grey, level = 255 - grey, 255 - level
    elif grey.shape == (SIDE, SIDE):
        return grey
    garment = np.abs(grey.astype(np.int16) - level) > _BACKGROUND_TOLERANCE * 255
    rows, columns = np.flatnonzero(garment.any(1)), np.flatnonzero(garment.any(0))
    if not len(rows):  # a blank picture
        return np.zeros((SIDE, SIDE), np.uint8)
    lifted = np.where(garment, grey, 0).astype(np.uint8)
    box = lifted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    fitted = ImageOps.pad(Image.fromarray(box), (SIDE, SIDE), Image.Resampling.LANCZOS, color=0)
    return np.asarray(fitted, np.uint8)


def _as_it_is(picture: Image.Image) -> NDArray[np.uint8] | None:
    """The data set's own kind, found the short way: most of what the service is sent."""
    if picture.mode != "L" or picture.size != (SIDE, SIDE) or picture.info:
        return None
    values = picture.tobytes()
    edges = values[:SIDE] + values[-SIDE:] + values[::SIDE] + values[SIDE - 1 :: SIDE]
    is_dark = sorted(edges)[len(edges) // 2] < 128
    return np.frombuffer(values, np.uint8).reshape(SIDE, SIDE) if is_dark else None


def _grey(picture: Image.Image) -> NDArray[np.uint8]:
    """[H, W] luminance; 16-bit pictures are scaled to 8 bits."""
    if picture.getexif().get(ORIENTATION, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture)  # in their own type: as float64 a large picture would take half a gigabyte
        if values.max() > 255:
            values = values // 257
        return np.asarray(np.clip(values, 0, 255), np.uint8)
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        white = Image.new("L", coloured.size, "white")
        picture = Image.composite(coloured.convert("L"), white, coloured.getchannel("A"))
    return np.asarray(picture.convert("L"), np.uint8)


def _border_level(grey: NDArray[np.uint8]) -> int:
    """The usual grey value along the four edges."""
    edges = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return int(np.median(edges))


def decode(content: bytes, name: object) -> NDArray[np.uint8]:
    """An encoded picture (PNG, JPEG, WebP) -> uint8 [28, 28]. `name` is for the messages. Raises UserError."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = open_picture(content, name)
    if picture.width * picture.height > MAX_PIXELS:
        raise UserError(name, f"has {picture.width}x{picture.height} pixels; give {MAX_PIXELS:,} at most")
    return read_picture(picture, name)


def open_picture(content: bytes, name: object) -> Image.Image:
    """Its head is read, its pixels are not yet. Raises UserError."""
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UserError(name, "is no PNG, JPEG, WebP or IDX; give a picture") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(name, f"has too many pixels; give {MAX_PIXELS:,} at most") from error
    except Exception as error:
        raise _damaged(name, error) from error


def read_picture(picture: Image.Image, name: object) -> NDArray[np.uint8]:
    """One that was opened -> uint8 [28, 28]. Raises UserError."""
    try:
        return to_model_image(picture)
    except Exception as error:
        raise _damaged(name, error) from error


def _damaged(name: object, error: Exception) -> UserError:
    return UserError(name, f"is a damaged picture ({one_line(error)}); give a whole one")


def read_pictures(path: Path) -> NDArray[np.uint8]:
    """A picture, or an IDX file of many -> uint8 [N, 28, 28]. Raises UserError."""
    if path.is_dir():
        raise UserError(path, "is a folder; name the pictures in it")
    content = read_bytes(path)
    if not content:
        raise UserError(path, "is empty; give a picture")
    if not is_idx(content):
        return decode(content, path)[None]
    images = parse_idx(content, path)
    if images.ndim != 3 or images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
        raise UserError(path, f"holds {images.dtype} {list(images.shape)}; give pictures, uint8 [N, {SIDE}, {SIDE}]")
    return images
