"""Settings -> parts that work together: the one place for it, used by the command line, notebooks and services.

The public `load_data`, `train` and `evaluate` are here: they fill in what is missing and hand over. PyTorch is
imported when a training begins, not before.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fmnist.data import find_data
from fmnist.data.dataset import Dataset, SplitName
from fmnist.errors import UserError, explain
from fmnist.evaluation import evaluate_model
from fmnist.predictor import Predictor
from fmnist.progress import Watcher, print_notice, watcher_here
from fmnist.provenance import provenance
from fmnist.recipe import TrainConfig
from fmnist.registry import CHAMPION, PREVIOUS, Registry
from fmnist.run import LATEST, About, Run, check_same_config, create_run, find_run, list_runs
from fmnist.scores import Evaluation
from fmnist.settings import Settings
from fmnist.tracking.shipper import ship
from fmnist.tracking.tracker import JournalTracker, NullTracker, Tracker
from fmnist.tracking.wiring import Destinations, start_shipper

PathLike = str | os.PathLike[str]
Notice = Callable[[str], None]
NULL = NullTracker()


@dataclass(frozen=True)
class Workspace:
    """One place with data, runs and models."""

    settings: Settings
    notice: Notice = lambda text: None

    @property
    def runs_root(self) -> Path:
        return self.settings.home / "runs"

    def load_data(self, folder: PathLike | None = None) -> Dataset:
        """The data in `folder`; without one, those in data/; without those, Fashion-MNIST, fetched and verified."""
        return find_data(
            Path(folder or self.settings.data),
            self.settings.home / "data",
            required=folder is not None,
            download=self.settings.download,
            connect_timeout=self.settings.connect_timeout,
            notice=self.notice,
        )

    def data_of(self, run: Run) -> Dataset:
        """The data that `run` was trained on, from where it had them. Raises UserError where they are others now."""
        source = run.about.data["source"]
        data = self.load_data(source if Path(source).is_dir() else None)
        self._check_same_data(run, data)
        return data

    def _check_same_data(self, run: Run, data: Dataset) -> None:
        if data.digest != run.about.data["digest"]:
            raise UserError(
                f"data {data.source}",
                f"have the digest {data.digest[:12]}, run {run.id} was trained on {run.about.data['digest'][:12]}; "
                "give its own with --data DIR",
            )

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        return list_runs(self.runs_root)

    def find_run(self, reference: str, *, finished: bool = False) -> Run:
        return find_run(self.runs_root, reference, finished=finished)

    def check_request(self, config: TrainConfig, device: str) -> None:
        """Raise UserError for a model or a device that is not there, before anything else is done."""
        from fmnist.engine.plain import choose_device
        from fmnist.models import find_model

        find_model(config.model)
        choose_device(device)

    def new_run(self, config: TrainConfig, data: Dataset, device: str = "auto", **about: Any) -> "Job":
        """A run that has its folder and has not begun. Raises UserError, and leaves no folder, for what cannot run."""
        from fmnist import training
        from fmnist.engine.plain import Engine

        training.check_fits(config, data)
        engine = Engine(config, len(data.class_names), device)
        known = About(
            created=datetime.now(UTC).isoformat(),
            config=config,
            data={
                "name": data.name,
                "source": data.source,
                "digest": data.digest,
                "class_names": list(data.class_names),
            },
            device=engine.device.type,
            precision=str(engine.precision).removeprefix("torch."),
            versions=provenance(),
            **about,
        )
        return Job(create_run(self.runs_root, known), data, engine)

    def resume(self, reference: str, data: Dataset | None = None, device: str | None = None) -> "Job":
        """A run that goes on from where it stands, with its own configuration and data."""
        from fmnist.engine.plain import Engine

        run = self.find_run(reference)
        if data is not None:
            self._check_same_data(run, data)
        engine = Engine(run.config, len(run.about.data["class_names"]), device or run.about.device)
        return Job(run, data or self.data_of(run), engine)

    @property
    def destinations(self) -> Destinations:
        settings, home = self.settings, self.settings.home.resolve()
        uri = settings.tracking_uri or f"sqlite:///{home / 'mlflow.db'}"
        return Destinations(uri, settings.experiment, settings.model_name, home / "artifacts", home / "tensorboard")

    def train(self, job: "Job", watcher: Watcher, tracker: Tracker | None = None) -> Run:
        """Train to the end, and wait a while until it is tracked. Raises Interrupted or Failure."""
        if tracker is not None or not self.settings.tracking:
            return job.train(watcher, tracker or NULL)
        own = JournalTracker(job.run, lambda: start_shipper(job.run, self.settings.home.resolve()), self.notice)
        job.train(watcher, own)
        own.wait(self.settings.sync_wait, watcher.phase)
        watcher.end()
        return job.run

    def sync(self, run: Run, *, follow: bool = False) -> dict[str, str]:
        """Send what MLflow and TensorBoard do not have of the run yet. Gives what went wrong, by address."""
        return ship(run, self.destinations.sinks(run), follow=follow)

    def predictor(self, model: str = LATEST) -> Predictor:
        """The model of a run (`latest`, an id), of a version (`champion`, 3, models:/…), or in an .onnx file."""
        run, path = self._find_model(model)
        return Predictor(run.verified_model() if run else path)

    @property
    def registry(self) -> Registry:
        return Registry(self.destinations.mlflow_uri, self.settings.model_name)

    def _find_model(self, model: str) -> tuple[Run | None, Path]:
        path = Path(model)
        if model in (CHAMPION, PREVIOUS) or model.startswith("models:/") or (model.isdigit() and len(model) < 8):
            return None, self.registry.fetch(self.registry.find(model), self.settings.home / "models")
        if path.suffix == ".onnx" or path.is_file():
            return None, path
        run = self.find_run(model, finished=True)
        return run, run.model

    def evaluate(self, model: str = LATEST, split: SplitName = "test", data: Dataset | None = None) -> Evaluation:
        """What a model does on a split: of `data`, or of those that its run was trained on."""
        run, _ = self._find_model(model)
        predictor = self.predictor(model)
        if data is None:
            data = self.data_of(run) if run else self.load_data()
        return evaluate_model(predictor, data.split(split))


@dataclass(frozen=True)
class Job:
    """A run with what it takes to train it."""

    run: Run
    data: Dataset
    engine: Any  # an Engine; its module imports PyTorch

    @cached_property
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


def open_workspace(notice: Notice = lambda text: None) -> Workspace:
    """The workspace that the environment describes. Raises UserError for a setting that is not right."""
    try:
        return Workspace(Settings(), notice)
    except ValidationError as error:
        raise explain(error, _variable) from error


def _variable(field: str) -> str:
    return Settings.variable(field) if field in Settings.model_fields else field


def load_data(folder: PathLike | None = None) -> Dataset:
    """The data set in `folder`, or in data/, or Fashion-MNIST, fetched and verified."""
    return open_workspace(print_notice).load_data(folder)


def train(
    config: TrainConfig | None = None,
    data: Dataset | None = None,
    *,
    device: str = "auto",
    resume: str | None = None,
    name: str | None = None,
    note: str | None = None,
    tags: Mapping[str, str] | None = None,
    watcher: Watcher | None = None,
    tracker: Tracker | None = None,
) -> Run:
    """Train a model and give its run.

    `config`: the recipe, `TrainConfig()` without one. `data`: from `load_data()`, which it calls without one.
    `device`: auto, cpu or cuda. `resume`: a run (id or `latest`) to go on with; `config` must then be its own or
    missing. `watcher`: who follows the progress; without one, a display that suits terminal and notebook.
    `tracker`: without one, MLflow and TensorBoard; `NullTracker()` tracks nothing.
    """
    workspace = open_workspace(print_notice)
    if resume is not None:
        job = workspace.resume(resume, data, None if device == "auto" else device)
        check_same_config(job.run, job.run.config.differences(config) if config else {})
    else:
        config = config or TrainConfig()
        workspace.check_request(config, device)
        data = data or workspace.load_data()
        job = workspace.new_run(config, data, device, name=name, note=note, tags=dict(tags or {}))
    return workspace.train(job, watcher or watcher_here(), tracker)


def evaluate(model: str | Run = LATEST, split: SplitName = "test", data: Dataset | None = None) -> Evaluation:
    """What a model (a run, its id, `latest`, an .onnx path) does on a split: loss, confusion matrix, `scores`."""
    reference = model.id if isinstance(model, Run) else model
    return open_workspace(print_notice).evaluate(reference, split, data)
