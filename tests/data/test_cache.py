import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmnist import data
from fmnist.data import cache
from fmnist.data.dataset import Dataset

from ..helpers import PATIENCE

HERE = Path(__file__).parent


def find(root: Path, notices: list[str], folder: Path = HERE) -> Dataset:
    return data.find_data(folder, root, required=True, download=False, connect_timeout=1, notice=notices.append)


def test_a_second_start_reads_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find(tmp_path, [])
    monkeypatch.setattr(data.sources.LocalFiles, "read", lambda self: pytest.fail("read again"))
    second = find(tmp_path, [])
    assert (second.digest, second.class_names, second.source) == (first.digest, first.class_names, first.source)
    np.testing.assert_array_equal(second.train.images, first.train.images)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "flip manifest", "cut manifest"])
def test_damage_is_noticed_and_mended(tmp_path: Path, damage: str) -> None:
    first = find(tmp_path, [])
    (folder,) = tmp_path.iterdir()
    path = folder / ("manifest" if "manifest" in damage else "train_images.npy")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(raw[:100] if "cut" in damage else raw)
    with pytest.raises(cache.DamagedCacheError):
        cache.load(folder)
    notices: list[str] = []
    again = find(tmp_path, notices)
    assert "the data cache is damaged" in notices[0]
    np.testing.assert_array_equal(again.train.images, first.train.images)
    assert cache.load(folder).digest == first.digest


def test_the_source_is_where_the_files_lie_now(tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(HERE, own, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    assert find(tmp_path / "cache", [], own).source == str(own)
    own.rename(tmp_path / "moved")
    assert find(tmp_path / "cache", [], tmp_path / "moved").source == str(tmp_path / "moved")


def test_an_entry_that_is_whole_is_left_alone(tmp_path: Path) -> None:
    dataset = find(tmp_path, [])
    (folder,) = tmp_path.iterdir()
    before = folder.stat()
    cache.save(dataset, folder)
    assert folder.stat() == before


def start_together(root: Path, ready: Any, answers: Any) -> None:
    ready.wait(PATIENCE)
    try:
        answers.put(find(root, []).digest)
    except Exception as error:  # noqa: BLE001
        answers.put(repr(error))


@pytest.mark.parametrize("damaged", [False, True])
def test_many_that_start_at_once_all_get_the_data(tmp_path: Path, dataset: Dataset, damaged: bool) -> None:
    if damaged:
        find(tmp_path, [])
        next(tmp_path.glob("*/train_labels.npy")).write_bytes(b"")
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(4), context.Queue()
    together = [context.Process(target=start_together, args=(tmp_path, ready, answers)) for _ in range(4)]
    for process in together:
        process.start()
    assert {answers.get(timeout=PATIENCE) for _ in together} == {dataset.digest}
    for process in together:
        process.join(PATIENCE)
    (folder,) = tmp_path.iterdir()  # and nothing is left behind
    assert cache.load(folder).digest == dataset.digest


def test_without_room_for_a_cache_the_data_are_there_all_the_same(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(np, "save", full)
    notices: list[str] = []
    assert find(tmp_path, notices).digest == dataset.digest
    assert "the data cannot be cached ([Errno 28] No space left on device)" in notices[0]
    assert list(tmp_path.iterdir()) == []


def test_changed_files_are_another_entry(tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(HERE, own, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    find(tmp_path / "cache", [], own)
    (own / "labels.txt").write_text("\n".join("abcdefghij"))
    assert find(tmp_path / "cache", [], own).class_names == tuple("abcdefghij")
    assert len(list((tmp_path / "cache").iterdir())) == 2
