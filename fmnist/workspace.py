"""Settings -> parts that work together: the one place for it, used by the command line, notebooks and services.

PyTorch is imported when a training begins, not before.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fmnist.data import find_data
from fmnist.data.dataset import FASHION_MNIST, Dataset, SplitName
from fmnist.errors import Failure, UserError, explain, listing
from fmnist.evaluation import evaluate_model, other_classes
from fmnist.job import Job, check_workers, new_job, resumed_job
from fmnist.predictor import Predictor
from fmnist.progress import Watcher
from fmnist.recipe import TrainConfig
from fmnist.registry import Registry, names_version
from fmnist.run import LATEST, RUN_ID, Run, checked, find_run, list_runs
from fmnist.scores import Evaluation
from fmnist.settings import RESTORING, Settings
from fmnist.signals import importing
from fmnist.sweep import Sweep, list_tracked
from fmnist.tracked import Tracked
from fmnist.tracking.elsewhere import check_configuration, check_journal
from fmnist.tracking.fetching import check_held, fetch_run, forget_sent
from fmnist.tracking.journal import Journal
from fmnist.tracking.shipper import is_pending, ship
from fmnist.tracking.tracker import NULL, JournalTracker, Tracker
from fmnist.tracking.wiring import Destinations, start_catching_up, start_shipper

if TYPE_CHECKING:
    from fmnist.cluster.training import Team

PathLike = str | os.PathLike[str]
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Workspace:
    """One place with data, runs and models."""

    settings: Settings
    notice: Notice = lambda text: None

    @property
    def runs_root(self) -> Path:
        return self.settings.home / "runs"

    @property
    def sweeps_root(self) -> Path:
        return self.settings.home / "sweeps"

    def load_data(self, folder: PathLike | None = None) -> Dataset:
        """The data in `folder`; without one, those in data/; without those, Fashion-MNIST, fetched and verified."""
        if folder is None:
            return self._find_data(self.settings.data)
        return self._find_data(Path(os.path.expanduser(folder)), required=True)  # noqa: PTH111 - Path's may raise

    def _find_data(self, folder: Path | None, *, required: bool = False) -> Dataset:
        return find_data(
            folder,
            self.settings.home / "data",
            required=required,
            download=self.settings.download,
            connect_timeout=self.settings.connect_timeout,
            notice=self.notice,
        )

    def data_of(self, run: Run | Sweep) -> Dataset:
        """The data that `run` was trained on, from where it had them. Raises UserError where they are others now."""
        about = run.about.data
        source, known = Path(about["source"]), about["name"] == FASHION_MNIST
        if source.is_absolute() and source.is_dir():
            data = self._find_data(source, required=not known)
        else:
            data = self._find_data(None if known else self.settings.data)
        self.check_same_data(run, data)
        return data

    def check_same_data(self, run: Run | Sweep, data: Dataset) -> None:
        """Raise UserError for other data than the run's own."""
        if data.digest != run.about.data["digest"]:
            raise UserError(
                f"data {data.source}",
                f"have the digest {data.digest[:12]}, {run.title} was trained on {run.about.data['digest'][:12]}; "
                "give its own with --data DIR",
            )

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        return list_runs(self.runs_root)

    def find_run(self, reference: str, *, finished: bool = False) -> Run:
        return find_run(self.runs_root, reference, finished=finished)

    @contextmanager
    def team(self, what: TrainConfig | Run, workers: int, address: str | None = None) -> Iterator["Team | None"]:
        """Place for so many workers, on the Ray cluster at `address` or on this machine, where `what` needs more than
        this process. Raises UserError or Failure."""
        check_workers(what.config if isinstance(what, Run) else what, workers, address)
        if workers == 1 or (isinstance(what, Run) and self.is_over(what)):
            yield None
            return
        with importing():
            from fmnist.cluster.training import hired
        with hired(workers, address, self.notice) as team:
            yield team

    def run_to_resume(self, reference: str) -> Run:
        """The run; one that is not here is fetched from MLflow. Raises UserError, and Failure for one that went on."""
        try:
            run = self.find_run(reference)
        except UserError:
            if not RUN_ID.fullmatch(reference) or not self.settings.tracking:
                raise
            run = fetch_run(reference, self.runs_root, self.destinations, self.notice)
        if self.settings.tracking and not run.is_whole:
            check_held(run, self.destinations)
        return run

    def new_run(
        self, config: TrainConfig, data: Dataset, device: str = "auto", team: "Team | None" = None, **about: Any
    ) -> Job:
        """A run that has its folder and has not begun. Raises UserError, and leaves no folder, for what cannot run."""
        if team:
            about |= {"make_engine": team.make_engine, "workers": team.size}
        return new_job(self.runs_root, config, data, device, **about)

    def resume(
        self, reference: str, data: Dataset | None = None, device: str | None = None, team: "Team | None" = None
    ) -> Job:
        """A run that goes on from where it stands, with its own configuration and data."""
        run = self.find_run(reference)

        def load() -> Dataset:
            own = data or self.data_of(run)
            self.check_same_data(run, own)
            if (names := tuple(run.about.data["class_names"])) != own.class_names:
                theirs = listing(own.class_names)
                raise UserError(f"data {own.source}", f"have the classes {theirs}, run {run.id} {listing(names)}")
            return own

        job = resumed_job(run, load, device, team.make_engine if team else None)
        if data is not None:
            job.data  # noqa: B018 - what is given is checked before anything else
        return job

    @property
    def destinations(self) -> Destinations:
        settings, home = self.settings, self.settings.home.resolve()
        uri = settings.tracking_uri or f"sqlite:///{home / 'mlflow.db'}"
        return Destinations(uri, settings.experiment, settings.model_name, home / "artifacts", home / "tensorboard")

    def is_over(self, run: Run) -> bool:
        """Whether nothing is left to do but to send what the run's journal has: for this its data are not needed."""
        return run.is_whole and (not self.settings.tracking or Journal(run.journal).has("end"))

    def train(self, job: Job, watcher: Watcher, tracker: Tracker | None = None) -> Run:
        """Train to the end, and wait a while until it is tracked. Raises Interrupted or Failure."""
        run = job.run
        if tracker is not None or not self.settings.tracking:
            return run if tracker is None and self.is_over(run) else job.train(watcher, tracker or NULL)
        own = JournalTracker(run, lambda: start_shipper(run, self.settings.home.resolve()), self.notice)
        if not self.is_over(run):
            check_configuration(run)  # before anything is told or trained
            self._catch_up(run)
            job.train(watcher, own)
        elif is_pending(run, self.destinations.sinks(run)):
            own.commit([])
        try:
            own.wait(self.settings.sync_wait, watcher.phase)
        finally:
            watcher.end()
        return run

    def _catch_up(self, beside: Run) -> None:
        """Have what earlier runs still lack in MLflow and TensorBoard sent meanwhile."""
        left: list[Tracked] = []
        for run in list_tracked(self.settings.home):
            try:
                if run != beside and not run.is_locked and is_pending(run, self.destinations.sinks(run)):
                    left.append(run)
            except Failure as damage:
                self.notice(str(damage))
        if left:
            whose = "1 earlier run still lacks" if len(left) == 1 else f"{len(left)} earlier runs still lack"
            self.notice(f"what {whose} is sent meanwhile")
            start_catching_up(left, self.settings.home.resolve())

    def sync(self, run: Tracked, *, follow: bool = False, again: bool = False) -> dict[str, str]:
        """Send what MLflow and TensorBoard do not have of the run yet. Gives what went wrong, by address.

        `again`: whatever they had. Raises Failure for a run that was not tracked to its end.
        """
        if not follow:
            check_journal(run)
        sinks = self.destinations.sinks(run)
        if again:
            forget_sent(run, self.destinations)
        wanted = follow or is_pending(run, sinks)
        return ship(run, sinks, follow=follow, patience=self.settings.sync_wait) if wanted else {}

    @property
    def registry(self) -> Registry:
        return Registry(self.destinations.mlflow_uri, self.settings.model_name)

    def find_model(self, model: str | Run = LATEST) -> tuple[Run | None, Predictor]:
        """The model of a run (`latest`, an id), of a version (`champion`, 3, models:/…), or in an .onnx file.

        Gives its run too, where that is among those here.
        """
        if isinstance(model, Run):
            return model, Predictor(model.verified_model())
        if names_version(model):
            return None, Predictor(self.registry.fetch(self.registry.find(model), self.settings.home / "models"))
        path = Path(model)
        if path.suffix == ".onnx" or path.is_file():
            return None, Predictor(checked(path))
        return self.find_model(self.find_run(model, finished=True))

    def predictor(self, model: str | Run = LATEST) -> Predictor:
        return self.find_model(model)[1]

    def evaluate(
        self, model: str | Run = LATEST, split: SplitName = "test", data: Dataset | None = None
    ) -> tuple[Predictor, Evaluation]:
        """What a model does on a split: of `data`, or of those that its run was trained on."""
        run, predictor = self.find_model(model)
        if data is None:
            data = self.data_of(run) if run else self.load_data()
        if told := other_classes(predictor, data):
            self.notice(told)
        return predictor, evaluate_model(predictor, data.split(split))


def open_workspace(notice: Notice = lambda text: None, *, to_restore: bool = False) -> Workspace:
    """The workspace that the environment describes. Raises UserError for a setting that is not right."""
    try:
        workspace = Workspace(Settings(), notice)
    except ValidationError as error:
        raise explain(error, Settings.variable) from error
    if not to_restore and (left := workspace.settings.home / RESTORING).exists():
        raise Failure(left, "a restore was cut off here; finish it: fmnist restore")
    return workspace
