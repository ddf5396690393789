"""Fashion-MNIST, or data of one's own: found or fetched, checked, split, and cached."""

import dataclasses
from pathlib import Path

from fmnist.data import cache, sources
from fmnist.data.dataset import FASHION_MNIST, Dataset
from fmnist.data.sources import Notice
from fmnist.errors import Failure, UserError, one_line
from fmnist.files import scratch_folder

DOWNLOADED = "downloaded"
"""The source of data that were fetched."""


def find_data(
    folder: Path | None, cache_root: Path, *, required: bool, download: bool, connect_timeout: float, notice: Notice
) -> Dataset:
    """The data set in `folder`; where that holds none and is not `required`, Fashion-MNIST, fetched if need be.

    Raises UserError for data that are not right, Failure where there are none to be had.
    """
    local = sources.find_local(folder) if folder else None
    if folder and local:
        kept = cache.entry(cache_root, local.key)
        found = _cached(kept, notice) or _keep(local.read(), kept, notice)
        return dataclasses.replace(found, source=str(folder.resolve()))  # the same files may have lain elsewhere
    if folder and required:
        reason = "holds no data" if folder.is_dir() else "is no folder"
        raise UserError(folder, f"{reason}; give one with {sources.WHAT_TO_GIVE}")
    kept = cache.entry(cache_root, FASHION_MNIST)
    if dataset := _cached(kept, notice):
        return dataset
    if not download:
        raise Failure(
            folder or "Fashion-MNIST",
            f"holds no data, and FMNIST_DOWNLOAD forbids to fetch them; give {sources.WHAT_TO_GIVE}"
            if folder
            else "is not in the cache, and FMNIST_DOWNLOAD forbids to fetch it; give --data DIR",
        )
    with scratch_folder(cache_root) as scratch:
        fetched = sources.fetch(scratch, connect_timeout, notice).read()
    return _keep(dataclasses.replace(fetched, source=DOWNLOADED), kept, notice)


def inspect_data(folder: Path, cache_root: Path) -> Dataset | None:
    """What `find_data` would give if it fetched nothing, read and verified, nothing written; None where that is none.

    Raises UserError for data that are not right, DamagedCacheError for a cache that the next training makes anew.
    """
    local = sources.find_local(folder)
    kept = cache.entry(cache_root, local.key if local else FASHION_MNIST)
    if kept.exists():
        return cache.load(kept)
    return local.read() if local else None


def _cached(folder: Path, notice: Notice) -> Dataset | None:
    if not folder.exists():
        return None
    try:
        return cache.load(folder)
    except cache.DamagedCacheError as error:
        notice(f"the data cache is damaged ({error}); it is made anew")
        return None


def _keep(dataset: Dataset, folder: Path, notice: Notice) -> Dataset:
    """`dataset` itself, cached if that can be done: without a cache the next start takes longer, nothing else."""
    try:
        cache.save(dataset, folder)
    except (OSError, Failure) as error:
        notice(f"the data cannot be cached ({one_line(error)}); they will be read anew the next time")
    return dataset
