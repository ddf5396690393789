import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from fmnist import training
from fmnist.checkpoint import Checkpoint, read_checkpoint
from fmnist.data.dataset import Dataset
from fmnist.engine.plain import Engine
from fmnist.errors import Failure, Interrupted, UserError
from fmnist.progress import Silent
from fmnist.recipe import ORIGINAL, TrainConfig
from fmnist.run import Run
from fmnist.settings import Settings
from fmnist.workspace import Workspace

CONFIG = TrainConfig(epochs=4, batch_size=64, precision="fp32")


class StopAt(Silent):
    """Presses Ctrl-C within an epoch, after so many images."""

    def __init__(self, epoch: int, images: int) -> None:
        self.moment = epoch, images

    def step(self, epoch: int, images: int) -> None:
        if (epoch, images) == self.moment:
            signal.raise_signal(signal.SIGINT)


def undated(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The records without their times and speeds."""
    timed = {"time", "train_seconds"}
    records = [{key: value for key, value in record.items() if key not in timed} for record in checkpoint.records]
    for record in records:
        record["scores"] = {
            key: value for key, value in record["scores"].items() if key not in ("images_per_second", "epoch_seconds")
        }
    return records


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[TrainConfig], Run]:
    """A whole run with a configuration, trained once."""
    workspace = Workspace(Settings(home=tmp_path_factory.mktemp("undisturbed")))

    @cache
    def train(config: TrainConfig) -> Run:
        return workspace.new_run(config, dataset, "cpu").train(Silent())

    return train


BEST = CONFIG.model_copy(update={"keep": "best", "dropout": 1.0})


@pytest.mark.parametrize(
    ("config", "moment"), [(CONFIG, (1, 64)), (CONFIG, (3, 128)), (CONFIG, (4, 320)), (BEST, (3, 128))]
)
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    workspace: Workspace,
    dataset: Dataset,
    undisturbed: Callable[[TrainConfig], Run],
    config: TrainConfig,
    moment: tuple[int, int],
) -> None:
    whole = undisturbed(config)
    job = workspace.new_run(config, dataset, "cpu")
    epochs = moment[0] - 1
    saved = f"{epochs} of 4 epochs are saved" if epochs else "before its first epoch was completed"
    with pytest.raises(Interrupted, match=f"run {job.run.id}: interrupted, {saved}; go on with: fmnist train --resume"):
        job.train(StopAt(*moment))
    assert job.run.result is None
    assert read_checkpoint(job.run.checkpoint).epoch == epochs
    resumed = workspace.resume(job.run.id).train(Silent())
    one, other = read_checkpoint(whole.checkpoint), read_checkpoint(resumed.checkpoint)
    for own, others in ((one.state, other.state), (one.kept, other.kept)):
        assert own.keys() == others.keys()
        assert all(torch.equal(own[name], others[name]) for name in own)
    assert undated(one) == undated(other)
    assert whole.result is not None
    assert resumed.result is not None
    assert resumed.result.test == whole.result.test
    assert resumed.result.test_confusion == whole.result.test_confusion


def test_a_finished_run_is_not_trained_again(
    workspace: Workspace, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = workspace.new_run(CONFIG, dataset, "cpu").train(Silent())
    before = run.result, run.checkpoint.read_bytes(), run.model.read_bytes()
    monkeypatch.setattr(training, "_finish", lambda *args: pytest.fail("finished twice"))
    workspace.resume("latest").train(Silent())
    assert (run.result, run.checkpoint.read_bytes(), run.model.read_bytes()) == before


def test_a_run_that_was_stopped_while_it_exported_does_only_that(
    workspace: Workspace, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = workspace.new_run(CONFIG, dataset, "cpu")
    with monkeypatch.context() as patched:
        patched.setattr(training, "export_model", lambda *args: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted, match="4 of 4 epochs are saved"):
            job.train(Silent())
    monkeypatch.setattr(training, "do_epoch", lambda *args: pytest.fail("trained again"))
    run = workspace.resume(job.run.id).train(Silent())
    assert run.result is not None
    assert run.result.epochs == 4


def test_a_full_disk_keeps_the_last_good_checkpoint(
    workspace: Workspace, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, write = workspace.new_run(CONFIG, dataset, "cpu"), training.write_checkpoint

    def full(path: Path, checkpoint: Checkpoint) -> None:
        if checkpoint.epoch == 3:
            raise Failure(path, "cannot be written (No space left on device); make room")
        write(path, checkpoint)

    with monkeypatch.context() as patched:
        patched.setattr(training, "write_checkpoint", full)
        with pytest.raises(Failure, match=r"No space left on device\); make room; go on with: fmnist train --resume"):
            job.train(Silent())
    assert read_checkpoint(job.run.checkpoint).epoch == 2
    assert workspace.resume(job.run.id).train(Silent()).result is not None


def test_the_result_is_what_the_exported_file_scores(workspace: Workspace, finished: Run, dataset: Dataset) -> None:
    result = finished.result
    assert result is not None
    for split, expected in (("test", result.test), ("validation", result.val)):
        assert workspace.evaluate(str(finished.model), split, dataset)[1].scores == expected  # type: ignore[arg-type]
    assert result.epochs == result.best_epoch == 2
    assert result.images_per_second == pytest.approx(640 / result.phases["training steps"])
    records = read_checkpoint(finished.checkpoint).records
    assert result.seconds == pytest.approx(sum(record["scores"]["epoch_seconds"] for record in records))
    assert records[-1]["scores"]["val_accuracy"] == result.val.accuracy


def test_a_record_holds_the_scores_of_the_contract(finished: Run) -> None:
    for epoch, record in enumerate(read_checkpoint(finished.checkpoint).records, 1):
        assert record["epoch"] == epoch
        assert list(record["scores"]) == [
            "train_loss",
            "train_accuracy",
            "val_loss",
            "val_accuracy",
            "val_precision",
            "val_recall",
            "val_f1",
            "learning_rate",
            "images_per_second",
            "epoch_seconds",
        ]
        assert sum(map(sum, record["confusion"])) == 80


def with_losses(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Make the validation losses be these."""
    given, evaluate = iter(losses), Engine.evaluate
    monkeypatch.setattr(Engine, "evaluate", lambda self, data: evaluate(self, data)._replace(loss=next(given)))


def test_patience_runs_out_as_in_keras_and_the_best_weights_are_kept(
    workspace: Workspace, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_losses(monkeypatch, [5, 3, 4, 3, 3.5, 9, 9])
    config = ORIGINAL.model_copy(update={"batch_size": 64, "patience": 3, "precision": "fp32"})
    result = workspace.new_run(config, dataset, "cpu").train(Silent()).result
    assert result is not None
    assert (result.epochs, result.best_epoch) == (5, 2)  # 3 epochs after the second, none of them lower


def test_the_model_has_the_weights_of_the_best_epoch(
    workspace: Workspace, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_losses(monkeypatch, [5, 3, 4, 4])
    config = CONFIG.model_copy(update={"keep": "best"})
    best = workspace.new_run(config, dataset, "cpu").train(Silent())
    one = read_checkpoint(best.checkpoint)
    assert not torch.equal(one.kept["dense2.weight"], one.state["model/dense2.weight"])
    monkeypatch.undo()
    records = one.records[1]
    found = workspace.predictor(str(best.model)).probabilities(dataset.validation.images)
    assert (found.argmax(1) == dataset.validation.labels).mean() == pytest.approx(records["scores"]["val_accuracy"])


def test_a_batch_larger_than_the_training_split(workspace: Workspace, dataset: Dataset) -> None:
    with pytest.raises(UserError, match="batch_size 321: is more than the 320 training images; give at most that"):
        workspace.new_run(TrainConfig(batch_size=321), dataset)
    assert not workspace.runs_root.exists()


def test_a_training_that_diverges_says_so_at_once(workspace: Workspace, dataset: Dataset) -> None:
    job = workspace.new_run(CONFIG.model_copy(update={"learning_rate": 1e30}), dataset, "cpu")
    with pytest.raises(Failure, match=r"diverged, its loss is no finite number; start anew .* below 1e\+30$"):
        job.train(Silent())
    assert read_checkpoint(job.run.checkpoint).epoch < CONFIG.epochs
