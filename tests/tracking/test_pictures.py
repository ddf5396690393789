import pytest

from fmnist.tracking import pictures
from fmnist.tracking.journal import Record
from fmnist.tracking.pictures import matrix_png, mistakes_png

NAMES = [str(number) for number in range(10)]


def test_a_picture_is_rendered_once_for_all_sinks(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    first = matrix_png(records[1], NAMES), mistakes_png(records[-1])
    monkeypatch.setattr(pictures, "as_png", lambda figure: pytest.fail("rendered twice"))
    assert (matrix_png(records[1], NAMES), mistakes_png(records[-1])) == first
    assert all(png.startswith(b"\x89PNG") for png in first)


def test_each_record_has_its_own_picture(records: list[Record]) -> None:
    assert len({matrix_png(record, NAMES) for record in records[1:]}) == 4
    same_numbers = records[1] | {"epoch": 7}
    assert matrix_png(same_numbers, NAMES) != matrix_png(records[1], NAMES)
