"""What the package offers, `load_data`, `train`, `evaluate`: they fill in what is missing and hand over."""

from collections.abc import Mapping

from fmnist.data.dataset import Dataset, SplitName
from fmnist.job import check_request
from fmnist.progress import Watcher, print_notice, watcher_here
from fmnist.recipe import TrainConfig
from fmnist.run import LATEST, Run, check_same_config
from fmnist.scores import Evaluation
from fmnist.tracking.tracker import Tracker
from fmnist.workspace import PathLike, open_workspace


def load_data(folder: PathLike | None = None) -> Dataset:
    """The data set in `folder`, or in data/, or Fashion-MNIST, fetched and verified."""
    return open_workspace(print_notice).load_data(folder)


def train(
    config: TrainConfig | None = None,
    data: Dataset | None = None,
    *,
    device: str = "auto",
    workers: int = 1,
    address: str | None = None,
    resume: str | None = None,
    name: str | None = None,
    note: str | None = None,
    tags: Mapping[str, str] | None = None,
    watcher: Watcher | None = None,
    tracker: Tracker | None = None,
) -> Run:
    """Train a model and give its run.

    `config`: the recipe, `TrainConfig()` without one. `data`: from `load_data()`, which it calls without one.
    `device`: auto, cpu or cuda. `workers`: processes that share each batch, on the Ray cluster at `address` (auto,
    HOST:PORT, ray://HOST:PORT) or on this machine. `resume`: a run (id, `latest`) to go on with; `config` must then be
    its own or missing. `watcher`: who follows the progress; without one, a display that suits terminal and notebook.
    `tracker`: without one, MLflow and TensorBoard; `NullTracker()` tracks nothing.
    """
    workspace = open_workspace(print_notice)
    if resume is not None:
        run = workspace.run_to_resume(resume)
        check_same_config(run, run.config.differences(config) if config else {})
        with workspace.team(run, workers, address) as team:
            job = workspace.resume(run.id, data, None if device == "auto" else device, team)
            return workspace.train(job, watcher or watcher_here(), tracker)
    config = config or TrainConfig()
    check_request(config, device)
    with workspace.team(config, workers, address) as team:
        data = data or workspace.load_data()
        job = workspace.new_run(config, data, device, team, name=name, note=note, tags=dict(tags or {}))
        return workspace.train(job, watcher or watcher_here(), tracker)


def evaluate(model: str | Run = LATEST, split: SplitName = "test", data: Dataset | None = None) -> Evaluation:
    """What a model does on a split: loss, confusion matrix, `scores`.

    `model`: a run, its id, `latest`, `champion`, a version, models:/…, or an .onnx path.
    """
    return open_workspace(print_notice).evaluate(model, split, data)[1]
