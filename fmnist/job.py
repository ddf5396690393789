"""A run with what it takes to train it. PyTorch is imported when that is needed, not before."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from fmnist.data.dataset import Dataset
from fmnist.errors import UserError
from fmnist.progress import Watcher
from fmnist.provenance import provenance
from fmnist.recipe import TrainConfig
from fmnist.run import About, AboutData, Run, create_run
from fmnist.signals import importing
from fmnist.tracking.tracker import NULL, Tracker

EngineMaker = Callable[[TrainConfig, int, str], Any]


@dataclass(frozen=True)
class Job:
    """What is loaded of it is loaded when it is first asked for: a run that is over may need nothing."""

    run: Run
    load_data: Callable[[], Dataset]
    make_engine: Callable[[], Any]
    """Gives an Engine."""

    @cached_property
    def data(self) -> Dataset:
        return self.load_data()

    @cached_property
    def engine(self) -> Any:
        return self.make_engine()

    @property
    def layers(self) -> Any:
        from fmnist.models import layer_table

        return layer_table(self.engine.model)

    @property
    def parameters(self) -> tuple[int, int]:
        """(all, trainable)."""
        from fmnist.models import count_parameters

        return count_parameters(self.engine.model)

    def train(self, watcher: Watcher, tracker: Tracker = NULL) -> Run:
        """Train to the end. Raises Interrupted or Failure."""
        from fmnist.training import run_training

        run_training(self.run, self.data, self.engine, watcher, tracker)
        return self.run


def check_request(config: TrainConfig, device: str) -> None:
    """Raise UserError for a model or a device that is not there, before anything else is done."""
    with importing():
        from fmnist.engine.plain import choose_device
        from fmnist.models import find_model

    find_model(config.model)
    choose_device(device)


def check_workers(config: TrainConfig, workers: int, address: str | None) -> None:
    """Raise UserError where so many workers, on the cluster at `address`, make no sense."""
    if workers < 1:
        raise UserError(f"--workers {workers}", "is too small; give at least 1")
    if address and workers == 1:
        raise UserError(f"--address {address}", "is for several workers; give --workers N too, or leave it out")
    if workers > 1 and config.batch_size < 2 * workers:
        raise UserError(
            f"--workers {workers}",
            f"leaves each less than 2 images of a batch of {config.batch_size}; give at most {config.batch_size // 2}, "
            "or a larger --batch-size",
        )


def about_data(data: Dataset) -> AboutData:
    """What is recorded of the data."""
    return {
        "name": data.name,
        "source": data.source,
        "digest": data.digest,
        "class_names": list(data.class_names),
    }


def new_job(
    runs_root: Path,
    config: TrainConfig,
    data: Dataset,
    device: str = "auto",
    make_engine: EngineMaker | None = None,
    **about: Any,
) -> Job:
    """A run that has its folder and has not begun. Raises UserError, and leaves no folder, for what cannot run.

    `make_engine`: takes a configuration, a number of classes and a device; without it, of this process alone.
    """
    from fmnist import training
    from fmnist.engine import fast

    training.check_fits(config, data)
    engine = (make_engine or fast.make_engine)(config, len(data.class_names), device)
    known = About(
        created=datetime.now(UTC).isoformat(),
        config=config,
        data=about_data(data),
        device=engine.device.type,
        precision=str(engine.precision).removeprefix("torch."),
        versions=provenance(),
        **about,
    )
    return Job(create_run(runs_root, known), lambda: data, lambda: engine)


def resumed_job(
    run: Run, load_data: Callable[[], Dataset], device: str | None, make_engine: EngineMaker | None = None
) -> Job:
    """A run that goes on from where it stands, on its own device unless another is given."""

    def engine() -> Any:
        with importing():
            from fmnist.engine import fast

        return (make_engine or fast.make_engine)(
            run.config, len(run.about.data["class_names"]), device or run.about.device
        )

    return Job(run, load_data, engine)
