"""What MLflow takes for images: a tensor as lists, or a data frame with one column of flat lists.

The same values are taken as by the real server, which has numpy cast Python's numbers: 0.5 is 0, "7" is 7, true is 1;
300, -1, NaN and null are refused. So are the codes with which it refuses: BAD_REQUEST for what can't be read,
INVALID_PARAMETER_VALUE for what can, but isn't what the model takes.
"""

from collections import defaultdict
from itertools import chain
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist.data.formats import SIDE
from fmnist.errors import one_line
from fmnist.serve.limits import Limits
from fmnist.serve.pictures import PIXELS
from fmnist.serve.web import Refused

BAD, UNFIT = "BAD_REQUEST", "INVALID_PARAMETER_VALUE"
SPLIT, RECORDS = FRAMES = ("dataframe_split", "dataframe_records")
_UNREADABLE = (TypeError, ValueError, OverflowError, AttributeError, RecursionError)
"""What numpy raises for values that are no numbers, too large, or nested unevenly or too deeply."""
_WANTED = f"give whole numbers from 0 to 255, [N][{SIDE}][{SIDE}]"
_FRAME_WANTED = f"give one column of lists of {PIXELS} whole numbers from 0 to 255"


class Unscorable(Refused):
    """A 400 with MLflow's code for it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(400, detail)
        self.code = code


def from_tensor(values: Any, field: str) -> NDArray[np.uint8]:
    """Parsed JSON -> uint8 [N, 28, 28]. Raises Unscorable."""
    images = _plain(values)
    if images is not None:
        return images
    if isinstance(values, list) and values:
        objects = [isinstance(value, dict) for value in values]
        if all(objects) or (field == "instances" and objects[0]):
            _refuse_objects(values, field)
    images = _cast(values, field, BAD, _WANTED)
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise Unscorable(UNFIT, f"{field}: has the shape {list(images.shape)}; {_WANTED}")
    return images


def _plain(values: Any) -> NDArray[np.uint8] | None:
    """Lists of whole numbers, as nearly all requests have them, in a third of numpy's time; None for others."""
    try:
        rows = list(chain.from_iterable(values))
        if set(map(len, values)) | set(map(len, rows)) == {SIDE}:
            return np.frombuffer(bytes(chain.from_iterable(rows)), np.uint8).reshape(-1, SIDE, SIDE)
    except (TypeError, ValueError):
        pass
    return None


def _cast(values: Any, name: str, code: str, wanted: str) -> NDArray[np.uint8]:
    try:
        return np.array(values, np.uint8)
    except _UNREADABLE as error:
        raise Unscorable(code, f"{name}: can't be taken ({one_line(error)[:100]!a}); {wanted}") from error


def _refuse_objects(objects: list[Any], field: str) -> None:
    """Tensors with names, which the model has not. MLflow reads them first, and says so if it can't."""
    shapes = defaultdict(list)
    try:
        for each in objects:
            for name, value in each.items():
                shapes[name].append(_shape(value))
        uneven = len(set(map(len, shapes.values()))) > 1 or any(len(set(column)) > 1 for column in shapes.values())
        if uneven and field == "instances":
            raise ValueError("they differ in their names or shapes")
    except _UNREADABLE as error:
        raise Unscorable(BAD, f"{field}: can't be read ({one_line(error)[:100]!a}); {_WANTED}") from error
    raise Unscorable(UNFIT, f"{field}: holds objects; {_WANTED}")


def _shape(value: Any) -> tuple[int, ...]:
    """As numpy sees it, which would need memory to say so: as much for every number as for the longest text."""
    if not isinstance(value, list):
        return ()
    shapes = set(map(_shape, value))
    if len(shapes) > 1:
        raise ValueError("its lists are of different lengths")
    return (len(value), *shapes.pop()) if shapes else (0,)


def from_frame(values: Any, field: str, limits: Limits) -> NDArray[np.uint8]:
    """A parsed frame whose one column holds lists of 784 numbers -> uint8 [N, 28, 28]. Raises Refused."""
    columns = _columns(_rows(values) if field == SPLIT else values, field, limits)
    names = values.get("columns") if field == SPLIT else None
    if names is not None and (not isinstance(names, list) or len(names) != len(columns)):
        raise Unscorable(BAD, f"{field}: its columns are not those of its data; name each")
    for column in columns:
        if not isinstance(column[0], list):
            _check_scalars(column, field)
    if len(columns) != 1 or not isinstance(columns[0][0], list):
        raise Unscorable(UNFIT, f"{field}: is not one column of lists; {_FRAME_WANTED}")
    pixels = _cast(columns[0], field, UNFIT, _FRAME_WANTED)
    if pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise Unscorable(UNFIT, f"{field}: has cells of the shape {list(pixels.shape[1:])}; {_FRAME_WANTED}")
    return pixels.reshape(-1, SIDE, SIDE)


def _rows(split: Any) -> Any:
    if not isinstance(split, dict) or "data" not in split or split.keys() - {"columns", "data", "index"}:
        raise Unscorable(BAD, f'{SPLIT}: is no frame; give {{"columns": […], "data": [[…], …]}}')
    return [] if split["data"] is None else split["data"]


def _columns(rows: Any, field: str, limits: Limits) -> list[list[Any]]:
    """Rows may be objects, lists or single values, all of one kind; what is missing in one is NaN or None."""
    if not isinstance(rows, list):
        raise Unscorable(BAD, f"{field}: is no list of rows; {_FRAME_WANTED}")
    if not rows or not isinstance(rows[0], (dict, list)):
        return [rows] if rows else []
    kind = type(rows[0])
    if not all(isinstance(row, (dict, kind)) for row in rows):
        raise Unscorable(BAD, f"{field}: its rows are of several kinds; {_FRAME_WANTED}")
    names = list(dict.fromkeys(chain.from_iterable(rows))) if kind is dict else list(range(max(map(len, rows))))
    rows = rows if kind is dict else list(map(list, rows))  # an object among lists stands for its names, to pandas
    if len(names) * len(rows) > limits.images * PIXELS:  # a few bytes can describe a frame of any size
        raise Refused(413, f"{field}: has {len(names):,} columns and {len(rows):,} rows; send less at once")
    if kind is dict:
        return [[row.get(name, np.nan) for row in rows] for name in names]
    return [[row[at] if at < len(row) else None for row in rows] for at in names]


def _check_scalars(column: list[Any], field: str) -> None:
    """That pandas casts them to uint8, which MLflow has it do before it looks at the shape."""
    try:
        types = set(map(type, column))
        if types <= {int, float, bool}:
            if float in types and not all(isfinite(cell) and cell >= 0 for cell in column):
                raise ValueError("a number is negative or infinite")
        else:
            np.array(column, np.uint8)
    except _UNREADABLE as error:
        raise Unscorable(
            BAD, f"{field}: holds what is no number ({one_line(error)[:100]!a}); {_FRAME_WANTED}"
        ) from error
