"""What a worker does with a trial, without Ray: the desk is asked directly."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from fmnist.cluster.desk import Desk, RemotePost
from fmnist.cluster.trial import Images, images_of, run_trial
from fmnist.data.dataset import Dataset, Split
from fmnist.errors import UserError
from fmnist.recipe import TrainConfig
from fmnist.space import Value

BASE = TrainConfig(epochs=3, batch_size=64, precision="fp32")
VALUES: dict[str, Value] = {"learning_rate": 0.003, "dropout": 0.1}


class Forbidden:
    """Test images that must not be looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError("somebody looks at the test images")


@dataclass
class Told:
    """What the search was told."""

    reports: list[dict[str, Any]]
    stop_after: int | None = None

    def report(self, values: dict[str, Any]) -> None:
        self.reports.append(values)
        if len(self.reports) == self.stop_after:
            raise SystemExit  # as Tune ends a trial that it stopped


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> Images:
    return images_of(replace(dataset, test=Forbidden()))  # type: ignore[arg-type]


def train(images: Images, desk: Desk, stop_after: int | None = None, values: dict[str, Value] = VALUES) -> list[Any]:
    told = Told([], stop_after)
    try:
        run_trial(2, values, BASE, images, desk, told.report)
    except SystemExit:
        assert stop_after
    return told.reports


def test_a_trial_never_gets_the_test_images(images: Images, dataset: Dataset) -> None:
    held = [value for value in vars(images).values() if isinstance(value, Split)]
    assert held == [dataset.train, dataset.validation]


def test_every_epoch_is_recorded_and_reported(images: Images) -> None:
    desk = Desk({})
    reports = train(images, desk)
    letters = desk.collect()
    assert [letter.record["key"] for letter in letters] == [
        "trial/002/start",
        "trial/002/epoch/1",
        "trial/002/epoch/2",
        "trial/002/epoch/3",
        "trial/002/end",
    ]
    start, *epochs, end = (letter.record for letter in letters)
    assert start["values"] == VALUES
    assert {"device", "precision", "host", "torch"} <= set(start["facts"])
    assert [(report["epoch"], report["last"]) for report in reports] == [(1, False), (2, False), (3, True)]
    assert [report["val_accuracy"] for report in reports] == [record["scores"]["val_accuracy"] for record in epochs]
    assert {"train_loss", "val_f1", "learning_rate"} <= set(epochs[0]["scores"])
    assert (end["state"], end["epochs"]) == ("completed", 3)
    assert desk.kept(2) is None  # it is over
    assert desk.collect() == []


def test_a_trial_that_was_cut_off_ends_as_if_it_had_not_been(images: Images) -> None:
    undisturbed = train(images, Desk({}))
    first = Desk({})
    train(images, first, stop_after=2)
    state = first.kept(2)
    assert state is not None
    second = Desk({2: state})
    assert train(images, second) == undisturbed  # reported anew from the first epoch, trained from the third
    again = [letter for letter in second.collect() if letter.state]
    assert [letter.record["epoch"] for letter in again] == [3]


def test_a_trial_that_had_all_its_epochs_only_tells_of_them(images: Images) -> None:
    desk = Desk({})
    train(images, desk)
    last = next(letter.state for letter in reversed(desk.collect()) if letter.state)
    second = Desk({2: last})
    assert [report["last"] for report in train(images, second)] == [False, False, True]
    letters = second.collect()
    assert [letter.record["key"] for letter in letters if letter.state] == []
    assert (letters[-1].record["key"], letters[-1].record["state"]) == ("trial/002/end", "completed")


def test_a_trial_that_diverges_is_over_and_counts_as_the_worst(images: Images) -> None:
    desk = Desk({})
    (report,) = train(images, desk, values={"learning_rate": 1e30})
    assert report == {"epoch": 1, "val_accuracy": 0.0, "last": True}
    end = desk.collect()[-1].record
    assert (end["key"], end["state"], end["epochs"]) == ("trial/002/end", "diverged", 0)
    assert "diverged" in end["why"]


def broken(classes: int, dropout: float) -> Any:
    raise ValueError("no such\nlayer")


def no_module() -> None:
    try:
        raise ModuleNotFoundError("No module named 'tiny'")
    except ImportError as error:
        raise UserError("model 'tiny:tiny'", "cannot be imported; mend the module") from error


def full() -> None:
    raise OSError(28, "No space left on device")


def no_memory() -> None:
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize("fail", [full, no_memory, no_module])
def test_what_its_machine_fails_is_not_held_against_a_configuration(
    images: Images, monkeypatch: pytest.MonkeyPatch, fail: Callable[[], None]
) -> None:
    monkeypatch.setattr("fmnist.checkpoint.encode", lambda checkpoint: fail())
    desk = Desk({})
    with pytest.raises((OSError, RuntimeError, UserError)):
        train(images, desk)
    assert [letter.record["key"] for letter in desk.collect()] == ["trial/002/start"]


def test_where_the_best_epoch_is_kept_the_search_is_told_of_that(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, told = iter([0.5, 0.1, 0.9]), Told([])

    def do_epoch(checkpoint: Any, *_: Any) -> float:
        number = checkpoint.epoch + 1
        scores = {"val_loss": next(losses), "val_accuracy": number / 10, "epoch_seconds": 1.0}
        record = {"key": f"epoch/{number}", "epoch": number, "time": 0.0, "scores": scores}
        checkpoint.records.append(record)
        checkpoint.epoch, checkpoint.finished = number, number == 3
        return 0.0

    monkeypatch.setattr("fmnist.training.do_epoch", do_epoch)
    monkeypatch.setattr("fmnist.checkpoint.encode", lambda checkpoint: b"")
    run_trial(2, VALUES, BASE.model_copy(update={"keep": "best"}), images, Desk({}), told.report)
    assert [(report["epoch"], report["val_accuracy"]) for report in told.reports] == [(1, 0.1), (2, 0.2), (3, 0.2)]


def test_what_goes_wrong_in_a_trial_is_told_as_its_end(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmnist.models.find_model", lambda name: broken)
    desk = Desk({})
    (report,) = train(images, desk)
    assert report == {"epoch": 1, "val_accuracy": 0.0, "last": True}
    start, end = (letter.record for letter in desk.collect())
    assert (start["key"], end["key"]) == ("trial/002/start", "trial/002/end")
    assert end["state"] == "failed"
    assert end["why"].startswith("model 'cnn': raises ValueError: no such layer; ")


def test_a_desk_that_is_not_reached_for_a_moment_is_no_fault_of_the_trials(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with an OSError, after which Tune begins it again; and it is told nothing of an end."""
    ray, desk, calls = pytest.importorskip("ray"), Desk({}), list[str]()

    def answer(asked: Any) -> Any:
        calls.append(asked[1]["key"])
        if len(calls) == 2:
            raise ray.exceptions.ActorUnavailableError("the network is away", None)
        return desk.send(*asked)

    monkeypatch.setattr(ray, "get", answer)
    remote = SimpleNamespace(
        send=SimpleNamespace(remote=lambda *given: given), kept=SimpleNamespace(remote=lambda number: None)
    )
    post = RemotePost(remote)
    monkeypatch.setattr(post, "kept", lambda number: None)
    with pytest.raises(ConnectionError, match="the network is away"):
        run_trial(2, VALUES, BASE, images, post, Told([]).report)
    assert calls == ["trial/002/start", "trial/002/epoch/1"]
