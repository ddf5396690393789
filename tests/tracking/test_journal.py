import os
import stat
from pathlib import Path

import pytest

from fmnist.errors import Failure
from fmnist.tracking.journal import Journal

RECORDS = [{"key": "start", "x": 0.1 + 0.2}, {"key": "epoch/1", "confusion": [[1, 2]]}, {"key": "end", "text": "ä\n"}]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    (tmp_path / "checkpoint").touch()  # which has the records too
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.read() == []
    journal.add_missing(RECORDS)
    return journal


def test_records_come_back_and_none_twice(journal: Journal) -> None:
    journal.add_missing(RECORDS)
    journal.add_missing([RECORDS[1], {"key": "more"}])
    assert journal.read() == [*RECORDS, {"key": "more"}]
    assert journal.path.read_text().count("\n") == 4


def test_a_torn_last_line_is_forgotten_and_written_again(journal: Journal) -> None:
    whole = journal.path.read_bytes()
    start = whole.rstrip(b"\n").rindex(b"\n") + 1
    for cut in range(start, len(whole)):
        journal.path.write_bytes(whole[:cut])
        assert journal.read() == RECORDS[:2]
    journal.add_missing(RECORDS)
    assert journal.path.read_bytes() == whole


def test_a_flipped_bit_anywhere_is_named(journal: Journal) -> None:
    whole = journal.path.read_bytes()
    lines = 0
    for position in range(len(whole) - 1):  # the last line's end is that of a torn one
        damaged = bytearray(whole)
        damaged[position] ^= 1
        journal.path.write_bytes(damaged)
        with pytest.raises(Failure, match=r"journal\.jsonl: is damaged in line \d"):
            journal.read()
        with pytest.raises(Failure, match="restore it, or remove it and resume the run"):
            journal.add_missing([{"key": "new"}])
        lines += 1
    assert lines > 300
    journal.path.with_name("checkpoint").unlink()  # as of a sweep: its journal alone has them
    with pytest.raises(Failure, match=r"is damaged in line \d; restore it$"):
        journal.read()


def test_a_new_ones_name_outlasts_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add_missing(RECORDS[:1])
    assert synced == ["file", "folder"]
    journal.add_missing(RECORDS)
    assert synced[2:] == ["file"]


def test_a_full_disk_loses_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Failure, match=r"cannot be written \(No space left on device\)"):
        journal.add_missing([{"key": "new"}])
    assert journal.read()[:3] == RECORDS
