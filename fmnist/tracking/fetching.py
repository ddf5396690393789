"""A run that was trained elsewhere, from what MLflow has of it: enough to go on with."""

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fmnist.errors import Failure, UserError
from fmnist.files import make_folder, scratch_folder, write_whole
from fmnist.registry import RUN_ID_TAG, Registry
from fmnist.run import Run
from fmnist.tracked import Tracked
from fmnist.tracking.journal import Journal
from fmnist.tracking.shipper import State
from fmnist.tracking.wiring import Destinations

CHECKPOINT = "checkpoint"
"""Where the last checkpoint of a training by several workers is among its artifacts, with its configuration."""
HOLDER_TAG = "fmnist.holder"
"""Of a run in MLflow that was fetched: what is also in the file `holder` of the folder that goes on with it."""
FIRST = "first"
"""What stands for the folder that was not fetched."""
HELD = "was fetched by another machine"


def fetch_run(run_id: str, runs_root: Path, destinations: Destinations, notice: Callable[[str], None]) -> Run:
    """The run's configuration and last checkpoint, in a folder in `runs_root`. Raises UserError or Failure.

    The checkpoint holds the records up to it, which MLflow takes again as the same. From here on it takes nothing from
    the folder that the run had before.
    """
    if (runs_root / run_id).exists():
        raise UserError(runs_root / run_id, "is there, but no run; move it away, and run the command again")
    registry = Registry(destinations.mlflow_uri, destinations.model_name)
    missing = UserError(
        f"run {run_id!r}", f"is not in {runs_root}, and MLflow has no checkpoint of it; see fmnist runs"
    )
    if registry.is_empty_place:
        raise missing
    with registry.client() as client:
        found = _find(client, destinations.experiment, run_id)
        if found is None or not client.list_artifacts(found.info.run_id, CHECKPOINT):
            raise missing
        with scratch_folder(make_folder(runs_root)) as scratch:
            folder = client.download_artifacts(found.info.run_id, CHECKPOINT, str(scratch))
            write_whole(Path(folder) / "holder", holder := secrets.token_hex(8))
            Path(folder).rename(runs_root / run_id)
            client.set_tag(found.info.run_id, HOLDER_TAG, holder)
    notice(f"run {run_id} is not here, MLflow has its last checkpoint: see that nobody else trains it still")
    return Run(runs_root / run_id)


def _find(client: Any, experiment_name: str, run_id: str) -> Any:
    """The run as MLflow has it; None where it has none."""
    if (experiment := client.get_experiment_by_name(experiment_name)) is None:
        return None
    wanted = f"tags.`{RUN_ID_TAG}` = '{run_id}'"
    return next(iter(client.search_runs([experiment.experiment_id], wanted, max_results=1)), None)


def check_holder(folder: Path, tags: Mapping[str, str]) -> None:
    """Raise Failure for a folder of a run that is gone on with in another; `tags`: the run's in MLflow."""
    own = _holder(folder) or FIRST
    if (holder := tags.get(HOLDER_TAG)) and holder != own:
        raise Failure(
            f"run {folder.name}",
            f"{HELD}, which goes on with it; to go on here from what that has sent, remove {folder}; from what is "
            f"here, set the run's tag {HOLDER_TAG} to {own} in MLflow",
        )


def _holder(folder: Path) -> str | None:
    file = folder / "holder"
    return file.read_text() if file.exists() else None


def check_held(run: Tracked, destinations: Destinations) -> None:
    """The same, of MLflow itself, where it has checkpoints of the run; if it does not answer, nothing is known."""
    registry, tags = Registry(destinations.mlflow_uri, destinations.model_name), dict[str, str]()
    alone = all(record.get("workers", 1) == 1 for record in Journal(run.journal).read())
    if (alone and not _holder(run.folder)) or registry.is_empty_place:
        return
    with suppress(Failure, UserError), registry.client() as client:
        if found := _find(client, destinations.experiment, run.id):
            tags = found.data.tags
            if HOLDER_TAG not in tags and (own := _holder(run.folder)):  # when it was fetched, that was cut off
                client.set_tag(found.info.run_id, HOLDER_TAG, own)
    check_holder(run.folder, tags)


def forget_sent(run: Tracked, destinations: Destinations) -> None:
    """What MLflow and TensorBoard have of the run: it is sent again. Raises Failure for a folder as above."""
    check_held(run, destinations)
    State(run).forget(destinations.sinks(run))
