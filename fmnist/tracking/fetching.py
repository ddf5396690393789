"""A run that was trained elsewhere, from what MLflow has of it: enough to go on with."""

from pathlib import Path

from fmnist.errors import UserError
from fmnist.files import make_folder, scratch_folder
from fmnist.registry import RUN_ID_TAG, Registry
from fmnist.run import Run
from fmnist.tracking.wiring import Destinations


def fetch_run(run_id: str, runs_root: Path, destinations: Destinations) -> Run:
    """The run's configuration and last checkpoint, in a folder in `runs_root`. Raises UserError or Failure.

    The checkpoint holds the records up to it, which MLflow takes again as the same.
    """
    registry = Registry(destinations.mlflow_uri, destinations.model_name)
    missing = UserError(
        f"run {run_id!r}", f"is not in {runs_root}, and MLflow has no checkpoint of it; see fmnist runs"
    )
    if registry.is_empty_place:
        raise missing
    with registry.client() as client:
        from fmnist.tracking.mlflow_sink import CHECKPOINT

        experiment = client.get_experiment_by_name(destinations.experiment)
        ids = [experiment.experiment_id] if experiment else []
        found = client.search_runs(ids, f"tags.`{RUN_ID_TAG}` = '{run_id}'", max_results=1) if ids else []
        if not found or not client.list_artifacts(found[0].info.run_id, CHECKPOINT):
            raise missing
        with scratch_folder(make_folder(runs_root)) as scratch:
            folder = client.download_artifacts(found[0].info.run_id, CHECKPOINT, str(scratch))
            Path(folder).rename(runs_root / run_id)
    return Run(runs_root / run_id)
