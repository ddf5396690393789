from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fmnist.data.dataset import Dataset, Split
from fmnist.engine.augment import Augmentation
from fmnist.engine.fast import FastEngine, make_engine
from fmnist.engine.plain import Engine
from fmnist.export import export_model
from fmnist.predictor import Predictor
from fmnist.recipe import TrainConfig

PLAIN = TrainConfig(flip=False, batch_size=64, epochs=1, precision="fp32")
CPU = torch.device("cpu")


def changed(images: NDArray[np.uint8], **fields: object) -> Iterator[NDArray[np.uint8]]:
    """The images after the changes of four epochs."""
    config = PLAIN.model_copy(update=fields)
    for epoch in range(4):
        augmented = Augmentation(config, np.random.default_rng((0, epoch)), len(images), CPU)
        yield augmented(torch.tensor(images), torch.arange(len(images))).numpy()


def test_an_image_is_moved_by_each_distance_as_often_and_what_comes_in_is_black(dataset: Dataset) -> None:
    images, seen = dataset.train.images, dict[tuple[int, int], int]()
    for moved in changed(images, shift=2):
        for before, after in zip(images, moved, strict=True):
            padded = np.pad(before, 2)
            fits = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[y : y + 28, x : x + 28], after)]
            assert len(fits) == 1
            seen[fits[0]] = seen.get(fits[0], 0) + 1
    assert len(seen) == 25
    assert min(seen.values()) > 25 and max(seen.values()) < 80  # of 1,280: 51 of each are expected


def test_a_hole_is_a_square_whose_centre_lies_anywhere(dataset: Dataset) -> None:
    images, centres = np.full((320, 28, 28), 9, np.uint8), set[tuple[int, int]]()
    for cut in changed(images, cutout=6):
        for image in cut:
            rows, columns = np.nonzero((image == 0).any(1))[0], np.nonzero((image == 0).any(0))[0]
            assert (image == 0).sum() == len(rows) * len(columns)
            assert (np.diff(rows) == 1).all() and (np.diff(columns) == 1).all()
            assert 3 <= len(rows) <= 6 and 3 <= len(columns) <= 6  # less than the whole at an edge
            centres.add((int(rows[0]), int(columns[0])))
    assert len(centres) > 400  # of 26 x 26, in 1,280 draws


@pytest.mark.parametrize("fields", [{"flip": True}, {"shift": 3}, {"cutout": 9}, {"shift": 1, "cutout": 4}])
def test_a_worker_changes_its_part_as_one_process_would(dataset: Dataset, fields: dict[str, object]) -> None:
    augmented = Augmentation(PLAIN.model_copy(update=fields), np.random.default_rng(1), 320, CPU)
    images, own = torch.tensor(dataset.train.images), torch.tensor([7, 300, 4, 19])
    assert torch.equal(augmented(images[own], own), augmented(images, torch.arange(320))[own])


def test_what_is_drawn_later_leaves_the_order_and_the_mirror_images_as_they_were() -> None:
    with_all = Augmentation(TrainConfig(shift=2, cutout=5), np.random.default_rng(1), 100, CPU)
    alone = Augmentation(TrainConfig(), np.random.default_rng(1), 100, CPU)
    assert with_all.mirrored is not None and alone.mirrored is not None
    assert torch.equal(with_all.mirrored, alone.mirrored)


def test_averaged_over_flips_an_image_and_its_mirror_image_get_the_same_answer(
    dataset: Dataset, tmp_path: Path
) -> None:
    engine = Engine(PLAIN.model_copy(update={"average_flips": True}), 10, "cpu")
    engine.train_epoch(dataset.train, 1)
    path = tmp_path / "model.onnx"
    export_model(engine.model, path, {"class_names": "[]"}, dataset.validation.images)
    images = dataset.validation.images
    answers = [Predictor(path).probabilities(np.ascontiguousarray(each)) for each in (images, images[:, :, ::-1])]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)
    mirrored = engine.evaluate(Split(np.ascontiguousarray(images[:, :, ::-1]), dataset.validation.labels))
    assert mirrored.loss == pytest.approx(engine.evaluate(dataset.validation).loss, abs=1e-6)


def test_averaging_changes_nothing_in_training(dataset: Dataset) -> None:
    engines = [Engine(PLAIN.model_copy(update={"average_flips": on}), 10, "cpu") for on in (False, True)]
    for engine in engines:
        engine.train_epoch(dataset.train, 1)
    pairs = zip(engines[0].model.state_dict().values(), engines[1].model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert type(make_engine(PLAIN.model_copy(update={"average_flips": True, "precision": "bf16"}), 10, "cpu")) is (
        FastEngine
    )
