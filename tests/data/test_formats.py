import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fmnist.data.formats import PIXELS, read_csv, read_images, read_labels
from fmnist.errors import UserError

HERE = Path(__file__).parent
HEADER = ",".join(["label", *(f"pixel{number}" for number in range(1, PIXELS + 1))])


def idx(array: NDArray[np.generic], kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def rows(count: int, value: int = 7) -> list[str]:
    return [",".join([str(number % 10), *[str(value)] * PIXELS]) for number in range(count)]


def write_csv(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_idx_gzipped_or_not(tmp_path: Path) -> None:
    zipped = HERE / "train-images-idx3-ubyte.gz"
    plain = tmp_path / "plain"
    plain.write_bytes(gzip.decompress(zipped.read_bytes()))
    images = read_images(zipped)
    assert images.shape == (400, 28, 28)
    np.testing.assert_array_equal(images, read_images(plain))
    assert read_labels(HERE / "train-labels-idx1-ubyte.gz").tolist().count(3) == 40


def test_labels_may_be_wider_numbers(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(idx(np.array([1, 70_000, 3], ">i4"), 0x0C))
    assert read_labels(path).tolist() == [1, 70_000, 3]


IMAGES = idx(np.zeros((3, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"hello", "is no IDX file: it begins with b'hell'"),
        (IMAGES[:10], "ends within its header, after 10 bytes"),
        (IMAGES[:-1], "holds 2,351 bytes of data where its header promises 2,352"),
        (IMAGES + b"x", "holds 2,353 bytes of data where its header promises 2,352"),
        (idx(np.zeros((3, 14, 56), np.uint8)), "holds images of 14x56; give 28x28"),
        (idx(np.zeros(3, np.uint8)), r"holds uint8 \[3\] where images are .* is it the labels"),
        (gzip.compress(IMAGES)[:-9], "is a damaged or cut gzip file"),
        (gzip.compress(IMAGES)[:20] + b"banana" + gzip.compress(IMAGES)[26:], "is a damaged or cut gzip file"),
        (b"\0\0\x08\x03" + bytes(4) + b"\xff" * 8, r"holds nothing: its header says \(0, 4294967295, 4294967295\)"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"xx", "holds 2 bytes of data where its header promises"),
    ],
)
def test_a_wrong_idx_file_is_named_with_what_is_wrong(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{path}: {told}"):
        read_images(path)


def test_images_in_the_place_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(IMAGES)
    with pytest.raises(UserError, match=r"where labels are whole numbers \[N\]; is it the images"):
        read_labels(path)


def test_a_missing_file() -> None:
    with pytest.raises(UserError, match="/nowhere: cannot be read"):
        read_images(Path("/nowhere"))


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_csv_gives_labels_and_pixels_in_order(tmp_path: Path, quoted: bool, zipped: bool) -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (5, PIXELS + 1))
    head = ",".join(f'"{name}"' for name in HEADER.split(",")) if quoted else HEADER
    text = "\n".join([head, *(",".join(map(str, row)) for row in table)])
    path = tmp_path / ("x.csv.gz" if zipped else "x.csv")
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    images, labels = read_csv(path)
    np.testing.assert_array_equal(labels, table[:, 0])
    np.testing.assert_array_equal(images.reshape(5, -1), table[:, 1:])
    assert images.dtype == np.uint8


def test_spaces_after_commas_and_blank_lines_are_no_fault(tmp_path: Path) -> None:
    lines = ["", *rows(2), "", *rows(1)]
    path = write_csv(tmp_path / "x.csv", [HEADER.replace(",", ", "), *(line.replace(",", ", ") for line in lines)])
    images, labels = read_csv(path)
    plain = read_csv(write_csv(tmp_path / "y.csv", [HEADER, *rows(2), *rows(1)]))
    np.testing.assert_array_equal(images, plain[0])
    np.testing.assert_array_equal(labels, plain[1])


def with_cell(value: str, row: int = 3, column: int = 5) -> list[str]:
    lines = [HEADER, *rows(9)]
    cells = lines[row - 1].split(",")
    cells[column] = value
    lines[row - 1] = ",".join(cells)
    return lines


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], r"is empty; it must begin with label,pixel1,…,pixel784"),
        ([HEADER], "has a header and no rows"),
        (rows(3), "begins with the columns '0', '7'; it must begin with label,pixel1"),
        (["a,b,c", "1,2,3"], "has 3 columns in its first row, not 785"),
        ([HEADER + ",extra", *[line + ",1" for line in rows(3)]], "has 786 columns in its first row, not 785"),
        ([HEADER, HEADER, *rows(3)], "row 2 repeats the header; remove that row"),
        ([HEADER, *rows(3), HEADER, *rows(3)], "row 5 repeats the header; remove that row"),
        (with_cell("banana"), "row 3, column pixel5: 'banana' is not a whole number from 0 to 255"),
        ([HEADER, "", *with_cell("banana")[1:]], "row 4, column pixel5: 'banana' is not a whole number from 0 to 255"),
        (with_cell("256"), "row 3, column pixel5: '256' is not a whole number from 0 to 255"),
        (with_cell("-1"), "row 3, column pixel5: '-1' is not a whole number from 0 to 255"),
        (with_cell("1.5"), "row 3, column pixel5: '1.5' is not a whole number from 0 to 255"),
        (with_cell(""), "row 3, column pixel5: '' is not a whole number from 0 to 255"),
        (with_cell("shirt", column=0), "row 3, column label: 'shirt' is not a whole number"),
        ([HEADER, *rows(4), rows(1)[0][:300]], "row 6 has 151 columns, not 785; the file is cut or damaged"),
        ([HEADER.replace("pixel10,", "pixel11,", 1)], "begins with the columns"),
        ([HEADER.replace("pixel1,pixel2,", "pixel2,pixel1,"), *rows(2)], "has its pixels in another order"),
    ],
)
def test_a_wrong_csv_file_is_named_with_row_and_remedy(tmp_path: Path, lines: list[str], told: str) -> None:
    path = write_csv(tmp_path / "x.csv", lines) if lines else tmp_path / "x.csv"
    path.touch()
    with pytest.raises(UserError, match=f"^{path}: {told}") as caught:
        read_csv(path)
    assert "\n" not in str(caught.value)


def test_binary_rubbish_is_no_csv(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(HEADER.encode() + b"\n" + bytes(range(256)) * 20)
    with pytest.raises(UserError, match=r"x\.csv: "):
        read_csv(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(UserError, match="columns in its first row"):
        read_csv(path)
