import gzip
import http.server
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fmnist import data
from fmnist.data import sources
from fmnist.data.dataset import Dataset
from fmnist.errors import Failure, UserError

from ..helpers import web_server

HERE = Path(__file__).parent
IDX = sorted(HERE.glob("*-ubyte.gz"))


def as_csv(dataset: Dataset, folder: Path) -> None:
    """The same images as Kaggle gives them: shuffled, two tables."""
    parts = {"train": (dataset.train, dataset.validation), "test": (dataset.test,)}
    for role, splits in parts.items():
        table = np.concatenate([np.column_stack([s.labels, s.images.reshape(len(s), -1)]) for s in splits])
        np.random.default_rng(3).shuffle(table)
        header = ",".join(["label", *(f"pixel{number}" for number in range(1, 785))])
        np.savetxt(folder / f"fashion-mnist_{role}.csv", table, "%d", ",", header=header, comments="")


def test_csv_and_idx_give_the_same_data(dataset: Dataset, tmp_path: Path) -> None:
    as_csv(dataset, tmp_path)
    files = sources.find_local(tmp_path)
    assert files is not None
    other = files.read()
    assert other.digest == dataset.digest
    np.testing.assert_array_equal(other.validation.images, dataset.validation.images)


def test_names_of_classes_come_from_labels_txt(tmp_path: Path) -> None:
    for path in IDX:
        shutil.copy(path, tmp_path)
    names = [f"class {number}" for number in range(10)]
    (tmp_path / "labels.txt").write_text("\n".join(names), "utf-8-sig")  # as Windows' editors do
    files = sources.find_local(tmp_path)
    assert files is not None
    assert files.read().class_names == tuple(names)
    assert files.key != sources.LocalFiles(tmp_path, files.files, None).key


@pytest.mark.parametrize("text", ["", "one", "a\na\nb"])
def test_labels_txt_must_name_classes(tmp_path: Path, text: str) -> None:
    for path in IDX:
        shutil.copy(path, tmp_path)
    (tmp_path / "labels.txt").write_text(text)
    files = sources.find_local(tmp_path)
    assert files is not None
    with pytest.raises(UserError, match=r"labels\.txt: holds . names, . different; give one a line"):
        files.read()


def test_a_folder_without_data_and_one_with_half_of_them(tmp_path: Path) -> None:
    assert sources.find_local(tmp_path / "missing") is None
    assert sources.find_local(tmp_path) is None
    shutil.copy(IDX[0], tmp_path)
    with pytest.raises(UserError, match=r"has t10k-images-idx3-ubyte.gz but not train-images-idx3-ubyte, .*; add what"):
        sources.find_local(tmp_path)
    (tmp_path / "a_train.csv").mkdir()  # no file
    (tmp_path / "b_test.csv").symlink_to("nowhere")
    (tmp_path / "my_train.csv").touch()
    with pytest.raises(UserError, match=r"has my_train.csv but not …test.csv; add what is missing"):
        sources.find_local(tmp_path)
    (tmp_path / "other_train.csv").touch()
    with pytest.raises(UserError, match=r"has my_train.csv or other_train.csv; leave one of them there"):
        sources.find_local(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine: (address, the folder that it serves)."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(folder), **kwargs)  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None: ...

    with web_server(Handler) as address:
        yield f"{address}/", folder


@pytest.fixture
def only(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The server is the only source there is; its files' hashes are the known ones. Gives its folder."""
    import hashlib

    address, folder = server
    known = {
        path.name.removesuffix(".gz"): hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest() for path in IDX
    }
    names = list(sources.IDX_FILES)
    monkeypatch.setattr(sources, "IDX_FILES", {name: known[name] for name in names})
    monkeypatch.setattr(sources, "ADDRESSES", (address,))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for path in IDX:
        shutil.copy(path, folder)
    return folder


def get(root: Path, folder: Path) -> Dataset:
    return data.find_data(folder, root, required=False, download=True, connect_timeout=5, notice=lambda text: None)


def test_a_download_is_verified_cached_and_not_repeated(only: Path, tmp_path: Path) -> None:
    first = get(tmp_path / "cache", tmp_path / "nothing")
    assert first.source == "downloaded"
    for path in only.iterdir():
        path.unlink()
    assert get(tmp_path / "cache", tmp_path / "nothing").digest == first.digest


@pytest.mark.parametrize("damage", ["missing", "cut", "garbled", "other"])
def test_a_bad_download_leaves_nothing_behind(only: Path, tmp_path: Path, damage: str) -> None:
    path = only / "t10k-images-idx3-ubyte.gz"
    raw = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    if damage == "garbled":
        path.write_bytes(raw[:20] + b"banana" + raw[26:])
    if damage == "other":
        path.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(Failure, match=r"^Fashion-MNIST: is out of reach: .*; put two CSV files .* give --data DIR$"):
        get(tmp_path / "cache", tmp_path / "nothing")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> str:
        raise OSError(5, "Input/output error")  # as a read gives it: without a name

    monkeypatch.setattr(sources, "sha256_of", refused)
    with pytest.raises(UserError, match=r"/train-images\S+: cannot be read \(Input/output error\); allow it, or copy"):
        get(tmp_path / "cache", IDX[0].parent)


def test_nothing_is_fetched_where_that_is_forbidden(only: Path, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="FMNIST_DOWNLOAD forbids to fetch them"):
        data.find_data(
            tmp_path, tmp_path / "c", required=False, download=False, connect_timeout=5, notice=lambda text: None
        )


def test_an_address_that_does_not_answer_is_told_shortly(
    only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "ADDRESSES", ("http://127.0.0.1:9/",))
    with pytest.raises(Failure, match=r"http://127.0.0.1:9/ \(connection refused\)"):
        get(tmp_path / "cache", tmp_path / "nothing")


def test_where_no_address_answers_debians_package_is_unpacked(
    only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, there = tmp_path / "bin", "$3/usr/share/datasets/fashion-mnist"
    tools.mkdir()
    fetch = f'for last; do :; done; [ "$last" = update ] || touch {sources.DEBIAN_PACKAGE}_1_all.deb'
    unpack = f'test -f "$2" && mkdir -p "{there}" && cp {only}/*.gz "{there}"'
    for name, script in {"apt-get": fetch, "dpkg": unpack}.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(tools / name))
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(sources, "ADDRESSES", ("http://127.0.0.1:9/",))
    monkeypatch.chdir(tmp_path)
    assert len(get(Path("cache"), tmp_path / "nothing").train) == 320  # a relative path does for its commands too


def test_a_second_address_helps_where_the_first_is_damaged(
    only: Path, server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = only / "bad"
    bad.mkdir()
    for path in IDX:
        (bad / path.name).write_bytes(gzip.compress(b"something else"))
    monkeypatch.setattr(sources, "ADDRESSES", (f"{server[0]}bad/", server[0]))
    assert len(get(tmp_path / "cache", tmp_path / "nothing").train) == 320
