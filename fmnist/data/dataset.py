"""The data in memory: arrays, their digest, and the split.

The digest and the split do not depend on the order in which a source gives the images: they are sorted first.
So Kaggle's CSV files, which are shuffled, give the same training and validation images as the IDX files.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fmnist.data.formats import PIXELS, SIDE
from fmnist.errors import UserError

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
SPLIT_SEED = 0
VALIDATION_SHARE = 0.2
FASHION_MNIST = "fashion-mnist"
FASHION_MNIST_DIGEST = "8cf55ad772c6cda5e9caeb5f1aca412389f5a19676f990c2c1a09df6b632c4a2"
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their classes."""

    images: NDArray[np.uint8]
    """[N, 28, 28], 0 is the background."""
    labels: NDArray[np.int64]
    """[N], class numbers."""

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self):,} images)"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, split for training."""

    name: str
    """`fashion-mnist`, recognized by its digest, or `custom`."""
    source: str
    """Where it was found."""
    digest: str
    """SHA-256 over all images and labels, whatever their order; 64 hex digits."""
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    def split(self, name: str) -> Split:
        """The split called `train`, `validation` or `test`."""
        if name not in SPLITS:
            raise UserError(f"split {name!r}", f"there is no such split; choose {', '.join(SPLITS)}")
        part: Split = getattr(self, name)
        return part

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(self.split(name)):,}" for name in SPLITS)
        return f"Dataset({self.name}, {len(self.class_names)} classes, {sizes}, digest {self.digest[:12]})"


def make_dataset(source: str, train: Split, test: Split, class_names: Sequence[str] | None = None) -> Dataset:
    """Check, sort and split what a source gave. `source` names it in messages.

    Without `class_names` they are Fashion-MNIST's where the data are its, else the numbers. Raises UserError.
    """
    classes = len(class_names) if class_names else int(max(train.labels.max(initial=0), test.labels.max(initial=0))) + 1
    _check("training", train, classes, source)
    _check("test", test, classes, source)
    if classes > len(train):
        raise UserError(
            source, f"has labels up to {classes - 1:,} and {len(train):,} training images; number from 0 up"
        )
    counts = np.bincount(train.labels, minlength=classes)
    if counts.min() < 5:
        rare = int(counts.argmin())
        raise UserError(
            source,
            f"has {counts[rare]} training images of class {rare}; give 5 or more of each of the {classes} classes",
        )
    train, test = _sorted(train), _sorted(test)
    digest = _digest(train, test)
    known = digest == FASHION_MNIST_DIGEST
    names = class_names or (FASHION_MNIST_CLASSES if known else [str(number) for number in range(classes)])
    training, validation = _divide(train)
    name = FASHION_MNIST if known else "custom"
    return Dataset(name, source, digest, tuple(names), training, validation, test)


def _check(role: str, split: Split, classes: int, source: str) -> None:
    images, labels = split.images, split.labels
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise UserError(
            source, f"{role} images are {images.dtype} {list(images.shape)}; give uint8 [N, {SIDE}, {SIDE}]"
        )
    if not len(images):
        raise UserError(source, f"has no {role} images; give some of each class")
    if len(images) != len(labels):
        raise UserError(
            source, f"has {len(images):,} {role} images and {len(labels):,} labels; give one label an image"
        )
    if classes < 2:
        raise UserError(source, "has one class only; give two or more")
    if len(wrong := np.flatnonzero((labels < 0) | (labels >= classes))):
        raise UserError(
            source,
            f"{role} image {wrong[0] + 1} is labelled {labels[wrong[0]]} where there are {classes} classes, "
            f"0 to {classes - 1}; mend the label, or add its name to labels.txt",
        )
    if images.max() <= 1:
        raise UserError(source, f"{role} pixels lie between 0 and {images.max()}; give them between 0 and 255")


def _rows(split: Split) -> NDArray[np.bytes_]:
    """An image a row: its label (4 bytes), then its pixels, as one byte string each."""
    labels = split.labels.astype(">u4").view(np.uint8).reshape(-1, 4)
    rows = np.hstack([labels, split.images.reshape(-1, PIXELS)])
    return rows.view(f"S{rows.shape[1]}").ravel()


def _sorted(split: Split) -> Split:
    order = np.argsort(_rows(split), kind="stable")
    return Split(split.images[order], split.labels[order])


def _digest(train: Split, test: Split) -> str:
    """SHA-256 of two sorted splits."""
    digest = hashlib.sha256()
    for split in (train, test):
        digest.update(len(split).to_bytes(8, "big"))
        digest.update(_rows(split).data)
    return digest.hexdigest()


def _divide(train: Split) -> tuple[Split, Split]:
    """(training, validation): each class in the same proportion in both."""
    from sklearn.model_selection import train_test_split

    indices = np.arange(len(train))
    parts = train_test_split(indices, test_size=VALIDATION_SHARE, stratify=train.labels, random_state=SPLIT_SEED)
    first, second = (Split(train.images[np.sort(part)], train.labels[np.sort(part)]) for part in parts)
    return first, second
