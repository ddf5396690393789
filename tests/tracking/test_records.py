import numpy as np

from fmnist.data.dataset import Dataset, Split
from fmnist.predictor import Predictor
from fmnist.run import Run
from fmnist.tracking.journal import Record
from fmnist.tracking.records import decode, encode, golden_batch, worst_mistakes


def test_a_journal_tells_the_whole_story(records: list[Record], journalled: Run) -> None:
    assert [record["key"] for record in records] == ["start", "epoch/1", "epoch/2", "epoch/3", "end"]
    start, end = records[0], records[-1]
    assert start["run_id"] == journalled.id
    assert start["params"] == journalled.config.model_dump()
    assert (start["name"], start["note"], start["tags"]) == ("a name", "a note", {"team": "red"})
    assert {"user", "host", "code", "torch", "device"} <= set(start["facts"])
    result = journalled.result
    assert result is not None
    assert end["scores"]["test_accuracy"] == result.test.accuracy
    assert end["model_sha256"] == result.model_sha256


def test_the_worst_mistakes_come_first() -> None:
    images = np.zeros((4, 28, 28), np.uint8)
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]], np.float32)
    mistakes = worst_mistakes(Split(images, np.array([0, 1, 1, 0])), probabilities, ["a", "b"])
    assert [(m.true, m.predicted, round(m.probability, 3)) for m in mistakes] == [
        ("b", "a", 0.8),
        ("a", "b", 0.7),
        ("b", "a", 0.6),
    ]


def test_the_golden_batch_is_answered_the_same(journalled: Run, dataset: Dataset, records: list[Record]) -> None:
    golden = records[-1]["golden"]
    images = np.stack([decode(text) for text in golden["images"]])
    np.testing.assert_allclose(Predictor(journalled.model).probabilities(images), golden["probabilities"], atol=1e-6)
    assert golden == golden_batch(dataset.validation, Predictor(journalled.model).probabilities)


def test_images_survive_as_text(dataset: Dataset) -> None:
    image = dataset.test.images[3]
    np.testing.assert_array_equal(decode(encode(image)), image)
