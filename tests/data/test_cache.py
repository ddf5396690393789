import shutil
from pathlib import Path

import numpy as np
import pytest

from fmnist import data
from fmnist.data import cache
from fmnist.data.dataset import Dataset

HERE = Path(__file__).parent


def find(root: Path, notices: list[str], folder: Path = HERE) -> Dataset:
    return data.find_data(folder, root, required=True, download=False, connect_timeout=1, notice=notices.append)


def test_a_second_start_reads_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find(tmp_path, [])
    monkeypatch.setattr(data.sources.LocalFiles, "read", lambda self: pytest.fail("read again"))
    second = find(tmp_path, [])
    assert (second.digest, second.class_names, second.source) == (first.digest, first.class_names, first.source)
    np.testing.assert_array_equal(second.train.images, first.train.images)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "manifest"])
def test_damage_is_noticed_and_mended(tmp_path: Path, damage: str) -> None:
    first = find(tmp_path, [])
    (folder,) = tmp_path.iterdir()
    path = folder / ("manifest.json" if damage == "manifest" else "train_images.npy")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(raw[:100] if damage in ("cut", "manifest") else raw)
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


def test_another_process_that_was_quicker_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = find(tmp_path, [])
    (folder,) = tmp_path.iterdir()
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # it came back before the rename
    cache.save(dataset, folder)
    assert cache.load(folder).digest == dataset.digest


def test_changed_files_are_another_entry(tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(HERE, own, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    find(tmp_path / "cache", [], own)
    (own / "labels.txt").write_text("\n".join("abcdefghij"))
    assert find(tmp_path / "cache", [], own).class_names == tuple("abcdefghij")
    assert len(list((tmp_path / "cache").iterdir())) == 2
