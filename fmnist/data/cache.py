"""Data sets as they come out of `make_dataset`, kept so that a later start has them at once."""

import hashlib
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist.data.dataset import SPLIT_SEED, SPLITS, Dataset, Split
from fmnist.errors import Failure
from fmnist.files import read_sealed, scratch_folder, sha256_of, write_sealed

_FORMAT = 2
_MANIFEST = "manifest"


class DamagedCacheError(Exception):
    """An entry is not what was written."""


def entry(root: Path, key: str) -> Path:
    """Where the data set with this key is kept; another format or split is another entry."""
    return root / f"{key}-{_FORMAT}.{SPLIT_SEED}"


def save(dataset: Dataset, folder: Path) -> None:
    """Keep `dataset` as `folder`, whole or not at all. A sound entry is left alone: others may be reading it."""
    with suppress(DamagedCacheError):
        load(folder)
        return
    with scratch_folder(folder.parent) as scratch:
        for name in SPLITS:
            split = dataset.split(name)
            np.save(scratch / f"{name}_images.npy", split.images)
            np.save(scratch / f"{name}_labels.npy", split.labels)
        manifest = {
            "name": dataset.name,
            "source": dataset.source,
            "digest": dataset.digest,
            "class_names": dataset.class_names,
            "files": {path.name: sha256_of(path) for path in sorted(scratch.glob("*.npy"))},
        }
        write_sealed(scratch / _MANIFEST, json.dumps(manifest).encode())
        scratch.chmod(0o755)  # a scratch folder is its maker's alone; what it holds here is public data
        with scratch_folder(folder.parent) as aside:
            with suppress(FileNotFoundError):  # a damaged one, if it is still there
                folder.rename(aside / "damaged")
            try:
                scratch.rename(folder)
            except OSError:
                if not folder.exists():  # it does where another process was quicker, with the same content
                    raise


def load(folder: Path) -> Dataset:
    """The data set kept as `folder`. Raises DamagedCacheError.

    Read, not mapped: of a mapped file that somebody cuts short meanwhile, the system kills the reader.
    """
    try:
        manifest = json.loads(read_sealed(folder / _MANIFEST))
        files = {name: _read(folder / name, digest) for name, digest in manifest["files"].items()}
        parts = {name: Split(files[f"{name}_images.npy"], files[f"{name}_labels.npy"]) for name in SPLITS}
        names = tuple(manifest["class_names"])
        return Dataset(manifest["name"], manifest["source"], manifest["digest"], names, **parts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, Failure) as error:
        raise DamagedCacheError(f"{folder} cannot be read") from error


def _read(path: Path, digest: str) -> NDArray[Any]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise DamagedCacheError(f"{path} has changed")
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array
