"""Fashion-MNIST, or data of one's own: found or fetched, checked, split, and cached."""

import dataclasses
from pathlib import Path

from fmnist.data import cache, sources
from fmnist.data.dataset import FASHION_MNIST, Dataset
from fmnist.data.sources import Notice
from fmnist.errors import Failure, UserError
from fmnist.files import scratch_folder


def find_data(
    folder: Path, cache_root: Path, *, required: bool, download: bool, connect_timeout: float, notice: Notice
) -> Dataset:
    """The data set in `folder`; where that holds none and is not `required`, Fashion-MNIST, fetched if need be.

    Raises UserError for data that are not right, Failure where there are none to be had.
    """
    local = sources.find_local(folder)
    if local:
        kept = cache.entry(cache_root, local.key)
        found = _cached(kept, notice) or _keep(local.read(), kept)
        return dataclasses.replace(found, source=str(folder.resolve()))  # the same files may have lain elsewhere
    if required:
        reason = "holds no data" if folder.is_dir() else "is no folder"
        raise UserError(folder, f"{reason}; give one with {sources.WHAT_TO_GIVE}")
    kept = cache.entry(cache_root, FASHION_MNIST)
    if dataset := _cached(kept, notice):
        return dataset
    if not download:
        raise Failure(folder, f"holds no data, and FMNIST_DOWNLOAD forbids to fetch them; give {sources.WHAT_TO_GIVE}")
    with scratch_folder(cache_root) as scratch:
        return _keep(sources.fetch(scratch, connect_timeout, notice).read(), kept, "downloaded")


def _cached(folder: Path, notice: Notice) -> Dataset | None:
    if not folder.exists():
        return None
    try:
        return cache.load(folder)
    except cache.DamagedCacheError as error:
        notice(f"the data cache is damaged ({error}); it is made anew")
        return None


def _keep(dataset: Dataset, folder: Path, source: str | None = None) -> Dataset:
    if source:
        dataset = dataclasses.replace(dataset, source=source)
    cache.save(dataset, folder)
    return cache.load(folder)
