"""The two file formats of the data: IDX (http://yann.lecun.com/exdb/mnist) and Kaggle's CSV.

Both are read whole into arrays; what is wrong with a file is a UserError that names it, the row where there
is one, and what to do.
"""

import gzip
import re
import zlib
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist.errors import UserError, one_line

SIDE = 28
PIXELS = SIDE * SIDE
MAX_BYTES = 4 << 30
"""What is read of a file, decompressed."""
CSV_HEADER = f"label,pixel1,…,pixel{PIXELS}"

# IDX: two zero bytes, a type, the number of dimensions, then each dimension as a big-endian 32-bit number.
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def is_idx(head: bytes) -> bool:
    """Whether a file that begins with `head` (4 bytes or more, decompressed) can be IDX."""
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in _IDX_TYPES and 1 <= head[3] <= 4


def read_bytes(path: Path) -> bytes:
    """The regular file's content, decompressed where it is gzip. Raises UserError."""
    if path.exists() and not path.is_file():  # a device or a pipe may never end
        raise UserError(path, "is no file; give one")
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(path, f"is larger than {MAX_BYTES >> 30} GiB; divide it, or choose another")
        return content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(path, f"is a damaged or cut gzip file ({one_line(error)}); fetch it again") from error
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror}); mend it or choose another") from error


def parse_idx(content: bytes, path: Path) -> NDArray[Any]:
    """The array in an IDX file's decompressed `content`; `path` is for the messages."""
    if not content:
        raise UserError(path, "is empty; fetch it again")
    if not is_idx(content):
        raise UserError(path, f"is no IDX file: it begins with {content[:4]!r}; fetch it again")
    dtype, dimensions = np.dtype(_IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise UserError(path, f"ends within its header, after {len(content)} bytes; fetch it again")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", dimensions, 4))
    if 0 in shape:
        raise UserError(path, f"holds nothing: its header says {shape}; fetch it again")
    promised, there = int(np.prod(shape, dtype=object)) * dtype.itemsize, len(content) - start
    if promised != there:
        raise UserError(
            path, f"holds {there:,} bytes of data where its header promises {promised:,} {shape}; fetch it again"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def read_images(path: Path) -> NDArray[np.uint8]:
    """An IDX file of grey pictures -> uint8 [N, 28, 28]."""
    array = parse_idx(read_bytes(path), path)
    if array.ndim != 3 or array.dtype != np.uint8:
        raise UserError(
            path,
            f"holds {array.dtype} {list(array.shape)} where images are uint8 [N, {SIDE}, {SIDE}]; "
            "is it the labels, or mixed up with another file?",
        )
    if array.shape[1:] != (SIDE, SIDE):
        raise UserError(
            path, f"holds images of {array.shape[1]}x{array.shape[2]}; give {SIDE}x{SIDE}, scale them first"
        )
    return array


def read_labels(path: Path) -> NDArray[np.int64]:
    """An IDX file of class numbers -> int64 [N]."""
    array = parse_idx(read_bytes(path), path)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UserError(
            path,
            f"holds {array.dtype} {list(array.shape)} where labels are whole numbers [N]; "
            "is it the images, or mixed up with another file?",
        )
    return array.astype(np.int64)


def read_csv(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A CSV file as Kaggle gives it, a row an image, its label first -> (uint8 [N, 28, 28], int64 [N])."""
    import pyarrow as pa
    from pyarrow import csv

    columns = _csv_columns(path)
    types = dict.fromkeys(columns[1:], pa.uint8()) | {columns[0]: pa.int64()}
    convert = csv.ConvertOptions(column_types=types, null_values=[])

    def read(*, threads: bool) -> Any:
        options = csv.ReadOptions(use_threads=threads, column_names=columns, skip_rows=1)
        return csv.read_csv(path, options, convert_options=convert)

    try:
        table = read(threads=True)
    except (pa.ArrowInvalid, OSError):
        table = None
    if table is None:  # once more on one thread: only then does the message know the row
        try:
            table = read(threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(path, _csv_problem(str(error), columns, path)) from error
    if table.num_rows == 0:
        raise UserError(path, "has a header and no rows; fetch it again")
    pixels = np.empty((table.num_rows, PIXELS), np.uint8)
    for index, column in enumerate(columns[1:]):
        pixels[:, index] = column_values(table, column)
    return pixels.reshape(-1, SIDE, SIDE), column_values(table, columns[0])


def column_values(table: Any, name: str) -> NDArray[Any]:
    values: NDArray[Any] = table.column(name).to_numpy()
    return values


def _csv_columns(path: Path) -> list[str]:
    """The header's names, checked: a label, then the pixels in order."""
    try:
        with _opened(path) as file:
            line = file.readline(1 << 16)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(path, f"cannot be read ({one_line(error)}); fetch it again") from error
    if not line.strip():
        raise UserError(path, f"is empty; it must begin with {CSV_HEADER}")
    names = [name.strip().strip('"') for name in line.decode("utf-8-sig", "replace").split(",")]
    if len(names) != PIXELS + 1:
        raise UserError(path, f"has {len(names)} columns in its first row, not {PIXELS + 1}; it must be {CSV_HEADER}")
    if names[0].lower() != "label" or len(set(names)) != len(names):
        raise UserError(path, f"begins with the columns {names[0]!r}, {names[1]!r}; it must begin with {CSV_HEADER}")
    numbers = [int(found[1]) for name in names[1:] if (found := re.fullmatch(r"pixel(\d+)", name))]
    if numbers and numbers != list(range(numbers[0], numbers[0] + PIXELS)):
        raise UserError(path, f"has its pixels in another order than {CSV_HEADER}; put the columns in order")
    return names


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _line_number(path: Path, row: int) -> int:
    """Where the `row`-th line that is not blank stands; both count from 1."""
    with _opened(path) as file:
        lines = (number for number, line in enumerate(file, 1) if line.strip(b"\r\n"))
        return next(islice(lines, row - 1, None), row)


def _csv_problem(message: str, columns: list[str], path: Path) -> str:
    """pyarrow's message -> what is wrong, in which row (the header is row 1), and what to do."""
    row = re.search(r"Row #(\d+)", message)
    where = f"row {_line_number(path, int(row[1]))}" if row else "a row"
    if columns_found := re.search(r"Expected (\d+) columns, got (\d+)", message):
        expected, found = columns_found.groups()
        return f"{where} has {found} columns, not {expected}; the file is cut or damaged, fetch it again"
    if value := re.search(r"CSV column #(\d+).*invalid value '(.*?)'", message, re.DOTALL):
        column = columns[int(value[1])]
        if value[2] == column:
            return f"{where} repeats the header; remove that row"
        expected = "a whole number" if column == columns[0] else "a whole number from 0 to 255"
        return f"{where}, column {column}: {value[2]!r} is not {expected}; mend that row"
    return f"is no such CSV file ({one_line(message)}); it must begin with {CSV_HEADER}"
