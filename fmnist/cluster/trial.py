"""A trial, as a worker trains it: one configuration on one processor, which tells its sweep what each epoch gave."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fmnist.data.dataset import Dataset, Split
from fmnist.errors import Failure, UserError, causes, one_line
from fmnist.recipe import TrainConfig
from fmnist.space import Value, placed
from fmnist.sweep import SCORE, State, kept_scores, key

Record = dict[str, Any]
Report = Callable[[dict[str, Any]], None]
DEVICE = "cpu"
LONGEST = 300
"""Characters of what went wrong that are kept."""


@dataclass(frozen=True, eq=False)
class Images:
    """All that a trial is given of the data. The test images are not among it: nothing can be chosen by them."""

    train: Split
    validation: Split
    classes: int


def images_of(data: Dataset) -> Images:
    """What trials may see of a data set."""
    return Images(data.train, data.validation, len(data.class_names))


class Post(Protocol):
    """The way to the sweep."""

    def send(self, number: int, record: Record, state: bytes | None = None) -> None:
        """A record of the trial, with the checkpoint that commits it. It is on its way when this returns."""

    def kept(self, number: int) -> bytes | None:
        """The checkpoint that the trial is to go on from."""


def run_trial(
    number: int, values: dict[str, Value], base: TrainConfig, images: Images, post: Post, report: Report
) -> None:
    """Train to the end, or until `report` does not return, which ends what is not worth going on with.

    A trial that was cut off goes on from its checkpoint, and reports the epochs that it had once more. What goes wrong
    in it is told as its end, and as a score that nobody wants: begun again, it would go wrong again.
    """
    import torch

    from fmnist.checkpoint import Checkpoint, decode
    from fmnist.training import DivergedError

    torch.set_num_threads(1)
    config = placed(base, values)
    post.send(number, start_record(number, values, _facts(config)))
    kept = post.kept(number)
    checkpoint = decode(kept, f"the checkpoint of trial {number}") if kept else Checkpoint()
    try:
        _train(number, config, checkpoint, images, post, report)
    except Exception as error:  # a network of one's own may raise anything
        if _is_the_machines(error):  # and not the configuration's: it is begun again, maybe elsewhere
            raise
        state: State = "diverged" if isinstance(error, DivergedError) else "failed"
        ours = isinstance(error, UserError | Failure)
        why = one_line(error) if ours else f"{type(error).__name__}: {one_line(error)}"
        post.send(number, end_record(number, checkpoint.epoch, state, why[:LONGEST]))
        report({"epoch": checkpoint.epoch + 1, SCORE: 0.0, "last": True})


def _is_the_machines(error: Exception) -> bool:
    """Whether another machine may not have it: a full disk, no memory, a module that is not there."""
    kinds = OSError | MemoryError | ImportError
    return any(isinstance(one, kinds) or "can't allocate memory" in str(one) for one in causes(error))


def _train(number: int, config: TrainConfig, checkpoint: Any, images: Images, post: Post, report: Report) -> None:
    from fmnist.checkpoint import encode
    from fmnist.engine.fast import make_engine
    from fmnist.progress import Silent
    from fmnist.training import do_epoch

    engine = make_engine(config, images.classes, DEVICE)
    if checkpoint.epoch:
        engine.load_state(checkpoint.state)

    def tell(record: Record, state: bytes | None = None) -> None:
        last = checkpoint.finished and record is checkpoint.records[-1]
        post.send(number, _epoch_record(number, record), state)
        if last:
            post.send(number, end_record(number, checkpoint.epoch, "completed"))
        scores = kept_scores(config, checkpoint.records) if last else record["scores"]  # as trials are ranked
        report({"epoch": record["epoch"], SCORE: scores[SCORE], "last": last})

    for record in checkpoint.records:
        tell(record)
    clock = time.perf_counter()
    while not checkpoint.finished:
        clock = do_epoch(checkpoint, images, engine, Silent(), clock)
        tell(checkpoint.records[-1], encode(checkpoint))


def _facts(config: TrainConfig) -> dict[str, str]:
    """Where the trial trains."""
    from fmnist.engine.plain import choose_device, choose_precision
    from fmnist.provenance import provenance

    precision = str(choose_precision(config.precision, choose_device(DEVICE))).removeprefix("torch.")
    return {"device": DEVICE, "precision": precision, **provenance()}


def start_record(number: int, values: dict[str, Value], facts: dict[str, str]) -> Record:
    """What the trial is, and where it trains."""
    return {"key": key(number, "start"), "time": time.time(), "values": values, "facts": facts}


def _epoch_record(number: int, record: Record) -> Record:
    """What the sweep keeps of an epoch."""
    own = {name: value for name, value in record.items() if name != "confusion"}
    return own | {"key": key(number, record["key"])}


def end_record(number: int, epochs: int, state: State, why: str | None = None) -> Record:
    """How a trial ended."""
    return {"key": key(number, "end"), "time": time.time(), "epochs": epochs, "state": state, "why": why}
