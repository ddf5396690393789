"""Where the data come from: a folder, the canonical addresses, Debian's package.

Fashion-MNIST's four files are known by the SHA-256 of their decompressed content, so it does not matter who
delivered or compressed them.
"""

import gzip
import hashlib
import logging
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fmnist.data.dataset import Dataset, Split, make_dataset
from fmnist.data.formats import read_csv, read_images, read_labels
from fmnist.errors import Failure, UserError, listing, one_line
from fmnist.files import make_folder, sha256_of

IDX_FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""Name -> SHA-256 of the decompressed file."""

ADDRESSES = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # the authors' own; verified by hash, hence http
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)
DEBIAN_PACKAGE = "dataset-fashion-mnist"
CLASS_NAMES_FILE = "labels.txt"
WHAT_TO_GIVE = "two CSV files (…train.csv, …test.csv) or the four IDX files (train-images-idx3-ubyte[.gz], …)"

Notice = Callable[[str], None]


@dataclass(frozen=True)
class LocalFiles:
    """A complete set of data files in one folder: two CSV files or four IDX files, in that order of roles."""

    folder: Path
    files: tuple[Path, ...]
    class_names_file: Path | None

    @property
    def key(self) -> str:
        """What the files hold, as 16 hex digits. Raises UserError where one cannot be read."""
        named = (*self.files, *([self.class_names_file] if self.class_names_file else []))
        digests = []
        for path in named:
            try:
                digests.append(sha256_of(path))
            except OSError as error:
                raise UserError(path, f"cannot be read ({error.strerror}); allow it, or copy it anew") from error
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]

    def read(self) -> Dataset:
        """All of it, checked and split. Raises UserError."""
        names = _read_class_names(self.class_names_file) if self.class_names_file else None
        if len(self.files) == 2:
            train, test = (Split(*read_csv(path)) for path in self.files)
        else:
            images, labels, test_images, test_labels = self.files
            train = Split(read_images(images), read_labels(labels))
            test = Split(read_images(test_images), read_labels(test_labels))
        return make_dataset(str(self.folder.resolve()), train, test, names)


def find_local(folder: Path) -> LocalFiles | None:
    """The data files in `folder`, or None if there are none. Raises UserError where one is out of reach."""
    if not folder.is_dir():
        return None
    try:
        any(folder.iterdir())
    except OSError as error:  # not the same as an empty one, in whose place Fashion-MNIST is fetched
        raise UserError(folder, f"cannot be read ({error.strerror}); allow it: chmod -R a+rX {folder}") from error
    names = folder / CLASS_NAMES_FILE
    names_file = names if names.is_file() else None
    tables = [_only(folder, f"*{role}.csv*") for role in ("train", "test")]
    if any(tables):
        return LocalFiles(folder, _complete(folder, ["…train.csv", "…test.csv"], tables), names_file)
    arrays = [_either(folder / name, folder / f"{name}.gz") for name in IDX_FILES]
    if any(arrays):
        return LocalFiles(folder, _complete(folder, list(IDX_FILES), arrays), names_file)
    return None


def _only(folder: Path, pattern: str) -> Path | None:
    found = sorted(path for path in folder.glob(pattern) if path.is_file() and path.name.endswith((".csv", ".csv.gz")))
    if len(found) > 1:
        raise UserError(folder, f"has {listing(path.name for path in found)}; leave one of them there")
    return found[0] if found else None


def _either(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _complete(folder: Path, names: list[str], paths: list[Path | None]) -> tuple[Path, ...]:
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing:
        there = [path.name for path in paths if path]
        raise UserError(folder, f"has {', '.join(there)} but not {', '.join(missing)}; add what is missing")
    return tuple(path for path in paths if path)


def _read_class_names(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(path, f"cannot be read as text ({one_line(error)}); give a class name a line") from error
    if len(names) < 2 or len(set(names)) != len(names):
        raise UserError(path, f"holds {len(names)} names, {len(set(names))} different; give one a line for each class")
    return names


def fetch(folder: Path, connect_timeout: float, notice: Notice) -> LocalFiles:
    """Get Fashion-MNIST into the empty `folder`, verified. Raises Failure if it cannot be had."""
    attempts = []
    places: list[tuple[str, Callable[[Path], LocalFiles]]] = [
        (address, partial(_download, address, connect_timeout=connect_timeout)) for address in ADDRESSES
    ]
    places.append((f"Debian's package {DEBIAN_PACKAGE}", _unpack_debian))
    for number, (place, get) in enumerate(places):
        notice(f"getting Fashion-MNIST from {place}")
        try:
            return _verified(get(make_folder(folder / str(number))))
        except (OSError, ValueError, subprocess.SubprocessError, Failure) as error:  # requests' errors are OSErrors
            attempts.append(f"{place} ({_cause(error)})")
    raise Failure(
        "Fashion-MNIST", f"is out of reach: {', '.join(attempts)}; put {WHAT_TO_GIVE} into data/, or give --data DIR"
    )


def _cause(error: BaseException) -> str:
    """An error's own reason, without the layers that wrapped it."""
    text = one_line(error)
    for mark in ("Failed to resolve", "timed out", "Connection refused", "Network is unreachable"):
        if mark in text:
            return "no such host" if mark == "Failed to resolve" else mark.lower()
    return text[:100]


def _download(address: str, folder: Path, *, connect_timeout: float) -> LocalFiles:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    for name in IDX_FILES:
        downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=(connect_timeout, 60))
        pooch.retrieve(f"{address}{name}.gz", None, fname=f"{name}.gz", path=folder, downloader=downloader)
    return _all_idx(folder)


def _all_idx(folder: Path) -> LocalFiles:
    files = find_local(folder)
    if files is None or len(files.files) != len(IDX_FILES):
        raise Failure(folder, "does not hold the four IDX files; try another source")
    return files


def _unpack_debian(folder: Path) -> LocalFiles:
    """Debian's package, downloaded and unpacked as any user, with package lists of our own: nothing is installed."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Failure("apt-get", "is not on this machine")
    folder = folder.resolve()  # commands run in it
    lists, cache = folder / "lists", folder / "cache"
    for needed in (lists / "partial", cache / "archives" / "partial"):
        needed.mkdir(parents=True)
    own = ("-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User=")
    for command in (["update"], ["download", DEBIAN_PACKAGE]):
        _run(["apt-get", "-q", *own, *command], folder)
    package = next(folder.glob(f"{DEBIAN_PACKAGE}_*.deb"))
    _run(["dpkg", "-x", str(package), str(folder / "unpacked")], folder)
    return _all_idx(folder / "unpacked" / "usr/share/datasets/fashion-mnist")


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode != 0:
        raise Failure(" ".join(command[:2]), done.stderr or f"exit code {done.returncode}")


def _verified(files: LocalFiles) -> LocalFiles:
    for path in files.files:
        expected = IDX_FILES[path.name.removesuffix(".gz")]
        try:
            found = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        except (OSError, EOFError, zlib.error) as error:
            raise Failure(path.name, f"arrived damaged ({one_line(error)})") from error
        if found != expected:
            raise Failure(path.name, f"has the SHA-256 {found[:12]}…, not {expected[:12]}…")
    return files
