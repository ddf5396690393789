import hashlib
from typing import Any

import numpy as np
import pytest

from fmnist.data import dataset as module
from fmnist.data.dataset import FASHION_MNIST_CLASSES, Dataset, Split, make_dataset
from fmnist.errors import UserError


def splits(dataset: Dataset) -> tuple[Split, Split]:
    """The training and test images as a source gives them."""
    parts = dataset.train, dataset.validation
    images, labels = (np.concatenate([getattr(part, field) for part in parts]) for field in ("images", "labels"))
    return Split(images, labels), dataset.test


def shuffled(split: Split, seed: int) -> Split:
    order = np.random.default_rng(seed).permutation(len(split))
    return Split(split.images[order], split.labels[order])


def test_the_order_of_the_images_changes_nothing(dataset: Dataset) -> None:
    train, test = splits(dataset)
    other = make_dataset("here", shuffled(train, 1), shuffled(test, 2))
    assert other.digest == dataset.digest
    for name in ("train", "validation", "test"):
        np.testing.assert_array_equal(other.split(name).images, dataset.split(name).images)
        np.testing.assert_array_equal(other.split(name).labels, dataset.split(name).labels)


@pytest.mark.parametrize("change", ["pixel", "label", "swap", "fewer"])
def test_any_change_changes_the_digest(dataset: Dataset, change: str) -> None:
    train, test = splits(dataset)
    images, labels = train.images.copy(), train.labels.copy()
    if change == "pixel":
        images[5, 27, 27] ^= 1
    elif change == "label":
        labels[5] = (labels[5] + 1) % 10
    elif change == "swap":  # two images exchange their labels
        other = int(np.flatnonzero(labels != labels[5])[0])
        labels[5], labels[other] = labels[other], labels[5]
    else:
        images, labels = images[1:], labels[1:]
    assert make_dataset("here", Split(images, labels), test).digest != dataset.digest


def test_the_split_is_stratified_and_has_no_image_twice(dataset: Dataset) -> None:
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (320, 80, 100)
    assert np.bincount(dataset.train.labels).tolist() == [32] * 10
    assert np.bincount(dataset.validation.labels).tolist() == [8] * 10
    seen = [image.tobytes() for name in ("train", "validation") for image in dataset.split(name).images]
    assert len(set(seen)) == 400


def test_the_split_stays_the_same_for_good(dataset: Dataset) -> None:
    """Every recipe and every peer is measured on it."""
    assert hashlib.sha256(dataset.validation.images.tobytes()).hexdigest()[:16] == "210d5804b5650c38"


def test_known_data_are_recognized_by_their_digest(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dataset.name == "custom"
    monkeypatch.setattr(module, "FASHION_MNIST_DIGEST", dataset.digest)
    known = make_dataset("here", *splits(dataset))
    assert (known.name, known.class_names) == ("fashion-mnist", FASHION_MNIST_CLASSES)


def test_class_names(dataset: Dataset) -> None:
    train, test = splits(dataset)
    assert dataset.class_names == tuple("0123456789")  # these few images are not all of Fashion-MNIST
    assert make_dataset("here", train, test, FASHION_MNIST_CLASSES).class_names == FASHION_MNIST_CLASSES


def test_repr_says_what_it_is(dataset: Dataset) -> None:
    assert repr(dataset).startswith("Dataset(custom, 10 classes, train 320, validation 80, test 100, digest ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"images": lambda a: a[:0], "labels": lambda a: a[:0]}, "has no training images"),
        ({"images": lambda a: a[:9]}, "has 9 training images and 400 labels"),
        ({"images": lambda a: a.astype(np.float32)}, r"training images are float32 \[400, 28, 28\]; give uint8"),
        ({"images": lambda a: a[:, :14]}, r"training images are uint8 \[400, 14, 28\]"),
        ({"images": lambda a: a // 255}, "training pixels lie between 0 and 1; give them between 0 and 255"),
        ({"labels": lambda a: a * 0}, "has 0 training images of class 1"),
        ({"labels": lambda a: np.where(a == 4, -1, a)}, "training image .* is labelled -1 where there are 10 classes"),
        ({"labels": lambda a: np.where(a == 4, 3, a)}, "has 0 training images of class 4; give 5 or more"),
        (
            {"labels": lambda a: np.where(a == 4, 10**12, a)},
            "has labels up to 1,000,000,000,000 and 400 training images",
        ),
        ({"labels": lambda a: np.where(a == 4, 11, a)}, "has 0 training images of class 4"),
    ],
)
def test_what_is_wrong_with_the_data_is_said(dataset: Dataset, change: dict[str, Any], told: str) -> None:
    train, test = splits(dataset)
    same = {"images": lambda a: a, "labels": lambda a: a} | change
    with pytest.raises(UserError, match=f"^here: {told}"):
        make_dataset("here", Split(same["images"](train.images), same["labels"](train.labels)), test)


def test_more_labels_than_names(dataset: Dataset) -> None:
    train, test = splits(dataset)
    with pytest.raises(
        UserError, match=r"is labelled \d where there are 4 classes, 0 to 3; mend the label, or add its name"
    ):
        make_dataset("here", train, test, ["a", "b", "c", "d"])
