"""The story of one run, from its folder to its result.

Each epoch: train, validate, record, commit. Then the model is exported, and the exported file is what meets the
test images, once.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fmnist.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fmnist.data.dataset import Dataset, Split
from fmnist.engine.plain import Engine, EpochResult
from fmnist.errors import Failure, Interrupted, UserError
from fmnist.evaluation import evaluate_model, score_answers
from fmnist.export import export_model, metadata_of
from fmnist.files import sha256_of
from fmnist.predictor import Predictor
from fmnist.progress import Record, Watcher
from fmnist.recipe import TrainConfig
from fmnist.run import Result, Run
from fmnist.scores import Evaluation
from fmnist.signals import check_signals
from fmnist.tracking.records import end_record, golden_batch, worst_mistakes
from fmnist.tracking.tracker import NULL, Tracker

CHECKED_IMAGES = 1000
"""Validation images on which the exported model is held against the trained one."""


class Parts(Protocol):
    """What an epoch takes of a data set."""

    @property
    def train(self) -> Split: ...
    @property
    def validation(self) -> Split: ...


class DivergedError(Failure):
    """The loss is no number any more."""


def check_fits(config: TrainConfig, data: Dataset) -> None:
    """Raise UserError where the configuration asks for more than the data have."""
    if config.batch_size > len(data.train):
        raise UserError(
            f"batch_size {config.batch_size}",
            f"is more than the {len(data.train):,} training images; give at most that",
        )


def run_training(
    run: Run,
    data: Dataset,
    engine: Engine,
    watcher: Watcher,
    tracker: Tracker = NULL,
) -> Result:
    """Train `run` to its end, from wherever it stands, and write its result.

    Raises Interrupted on Ctrl-C; the last completed epoch is then saved. Raises Failure where the disk fails.
    """
    with run.lock():
        checkpoint = read_checkpoint(run.checkpoint)
        tracker.commit(checkpoint.records)
        if run.is_whole and (result := run.result):
            tracker.end(lambda: _end_record(run, data, result))
            return result
        if run.finished and not checkpoint.epoch:  # to begin again under its id would give it a second end
            raise Failure(
                run.model, "is gone, and so is the checkpoint it was made from; restore one of them, or train anew"
            )
        if checkpoint.epoch:
            engine.load_state(checkpoint.state)
        watcher.begin(run.config, len(data.train), checkpoint.records)
        with _told_how_to_resume(run, checkpoint), _closing(watcher):
            if not checkpoint.finished:
                _do_epochs(run, checkpoint, data, engine, watcher, tracker)
            finished, answers = _finish(run, data, engine, checkpoint, watcher)
            tracker.end(lambda: _end_record(run, data, finished, answers))
            return finished


@contextmanager
def _closing(watcher: Watcher) -> Iterator[None]:
    try:
        yield
    finally:
        watcher.end()


@contextmanager
def _told_how_to_resume(run: Run, checkpoint: Checkpoint) -> Iterator[None]:
    resume = f"go on with: fmnist train --resume {run.id}"
    try:
        yield
    except KeyboardInterrupt:
        done = read_checkpoint(run.checkpoint).epoch
        saved = f"{done} of {run.config.epochs} epochs are saved" if done else "before its first epoch was completed"
        raise Interrupted(f"run {run.id}: interrupted, {saved}; {resume}") from None
    except DivergedError:  # to go on would end there again
        raise
    except Failure as error:
        raise Failure(f"run {run.id}", f"{error}; {resume}") from error


def _do_epochs(
    run: Run, checkpoint: Checkpoint, data: Dataset, engine: Engine, watcher: Watcher, tracker: Tracker
) -> None:
    with engine.at_work(data.train):
        clock = time.perf_counter()
        while not checkpoint.finished:
            clock = do_epoch(checkpoint, data, engine, watcher, clock)
            write_checkpoint(run.checkpoint, checkpoint)
            tracker.commit(checkpoint.records)
            watcher.epoch(checkpoint.records[-1])


def do_epoch(checkpoint: Checkpoint, data: Parts, engine: Engine, watcher: Watcher, clock: float) -> float:
    """Train and validate the next epoch; bring `checkpoint` up to it. `clock`: when the epoch before ended.

    Gives the time at which this one ended.
    """
    config, epoch = engine.config, checkpoint.epoch + 1

    def step(images: int) -> None:
        check_signals()
        watcher.step(epoch, images)

    trained = engine.train_epoch(data.train, epoch, step)
    validated = engine.evaluate(data.validation)
    if not math.isfinite(trained.loss + validated.loss):
        raise DivergedError(
            f"epoch {epoch}",
            f"the training diverged, its loss is no finite number; start anew with a learning rate below "
            f"{config.learning_rate:g}",
        )
    now = time.perf_counter()
    losses = [record["scores"]["val_loss"] for record in checkpoint.records]
    if config.keep == "best" and validated.loss < min(losses, default=float("inf")):
        checkpoint.kept = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    checkpoint.records.append(_record(epoch, trained, validated, engine, now - clock))
    checkpoint.epoch = epoch
    checkpoint.state = engine.state()
    checkpoint.finished = epoch >= config.epochs or _ran_out_of_patience(config, [*losses, validated.loss])
    return now


def _record(epoch: int, trained: EpochResult, validated: Evaluation, engine: Engine, seconds: float) -> Record:
    scores = {f"val_{name}": value for name, value in validated.scores._asdict().items()}
    return {
        "key": f"epoch/{epoch}",
        "epoch": epoch,
        "time": time.time(),
        "workers": engine.workers,
        "images": trained.images,
        "train_seconds": trained.seconds,
        "scores": {
            "train_loss": trained.loss,
            "train_accuracy": trained.accuracy,
            **scores,
            "learning_rate": engine.rate,
            "images_per_second": trained.images / trained.seconds,
            "epoch_seconds": seconds,
        },
        "confusion": validated.confusion.tolist(),
    }


def _ran_out_of_patience(config: TrainConfig, losses: list[float]) -> bool:
    """Whether as many epochs as the patience have passed since the lowest validation loss."""
    return config.patience is not None and len(losses) - 1 - losses.index(min(losses)) >= config.patience


def _finish(
    run: Run, data: Dataset, engine: Engine, checkpoint: Checkpoint, watcher: Watcher
) -> tuple[Result, NDArray[np.float32]]:
    """Export, score, write the result. Gives the answers on the test images too."""
    watcher.phase("exporting")
    started = time.perf_counter()
    _export(run, data, engine, checkpoint)
    exported = time.perf_counter()
    watcher.phase("scoring")
    predictor = Predictor(run.model)
    answers = predictor.probabilities(data.test.images)
    val, test = evaluate_model(predictor, data.validation), score_answers(answers, data.test)
    records = checkpoint.records
    trained = sum(record["train_seconds"] for record in records)
    seconds = sum(record["scores"]["epoch_seconds"] for record in records)
    result = Result(
        epochs=checkpoint.epoch,
        best_epoch=_kept_epoch(run.config, records),
        seconds=seconds,
        images_per_second=sum(record["images"] for record in records) / trained,
        phases=({"starting workers": engine.waited} if engine.waited else {})
        | {
            "training steps": trained,
            "validation and checkpoints": seconds - trained,
            "export": exported - started,
            "final scores": time.perf_counter() - exported,
        },
        val=val.scores,
        test=test.scores,
        test_confusion=test.confusion.tolist(),
        model_sha256=sha256_of(run.model),
        ended=time.time(),
    )
    run.write_result(result)
    return result, answers


def _export(run: Run, data: Dataset, engine: Engine, checkpoint: Checkpoint) -> None:
    """Write the run's model, with the weights that are kept."""
    engine.load_weights(checkpoint.kept or _model_weights(checkpoint))
    metadata = metadata_of(data.class_names, data.digest, run.config.model_dump_json(), run.id)
    count = len(data.validation)  # sorted by class: the images that are checked come from all over it
    checked = np.linspace(0, count - 1, min(CHECKED_IMAGES, count)).astype(int)
    export_model(engine.model, run.model, metadata, data.validation.images[checked])
    check_signals()  # PyTorch's exporter may have dropped one


def _end_record(run: Run, data: Dataset, result: Result, answers: NDArray[np.float32] | None = None) -> Record:
    """`answers`: on the test images, where they are known already."""
    predictor = Predictor(run.verified_model())
    if answers is None:
        answers = predictor.probabilities(data.test.images)
    golden = golden_batch(data.validation, predictor.probabilities)
    return end_record(result, worst_mistakes(data.test, answers, data.class_names), golden)


def _model_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {n.removeprefix("model/"): t for n, t in checkpoint.state.items() if n.startswith("model/")}


def _kept_epoch(config: TrainConfig, records: list[Record]) -> int:
    if config.keep == "last":
        return int(records[-1]["epoch"])
    return int(min(records, key=lambda record: record["scores"]["val_loss"])["epoch"])
