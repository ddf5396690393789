"""What a run's folder says was sent, where that was elsewhere: a copied folder brings the notes of another machine.

Both machines may call their MLflow the same (`http://mlflow:5000` in every platform, a path that both have). What
tells two places apart is MLflow's own id of the run, and the end of TensorBoard's file name: each is drawn by chance.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from fmnist.errors import Failure, UserError, one_line
from fmnist.registry import RUN_ID_TAG, Registry, database_file
from fmnist.run import Run
from fmnist.tracked import Tracked
from fmnist.tracking.journal import Journal
from fmnist.tracking.shipper import State
from fmnist.tracking.wiring import Destinations

_DELETED_FIRST = (
    "SELECT value, run_uuid FROM tags JOIN runs USING (run_uuid) WHERE key = ? ORDER BY lifecycle_stage = 'active'"
)

Known = Mapping[str, str] | Failure | UserError
"""fmnist's id -> MLflow's own, of the runs that MLflow has, deleted ones too; or why it could not be asked."""


def ask_mlflow(destinations: Destinations, runs: Sequence[Tracked]) -> Known:
    """What it has of the runs, and maybe of others."""
    registry = Registry(destinations.mlflow_uri, destinations.model_name)
    try:
        if registry.is_empty_place:
            return {}
        if file := database_file(registry.uri):  # in a moment, and without MLflow's import
            return _read(file)
        claimed = [run.id for run in runs if State(run).sent(destinations.mlflow_lane)]
        return _ask(registry, claimed[0] if len(claimed) == 1 else None) if claimed else {}
    except (Failure, UserError) as error:
        return error


def _ask(registry: Registry, run_id: str | None) -> dict[str, str]:
    """Of all runs, or of the one."""
    with registry.client() as client:
        from mlflow.entities import ViewType

        places = [place.experiment_id for place in all_pages(client.search_experiments, view_type=ViewType.ALL)]
        wanted = f"tags.`{RUN_ID_TAG}` = '{run_id}'" if run_id else ""
        found = list(all_pages(client.search_runs, places, wanted, ViewType.ALL)) if places else []
    found.sort(key=lambda run: bool(run.info.lifecycle_stage == "active"))
    return {run.data.tags[RUN_ID_TAG]: run.info.run_id for run in found if RUN_ID_TAG in run.data.tags}


def _read(file: Path) -> dict[str, str]:
    try:  # `rw` for what a kill has left: SQLite brings that in order before it reads
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=rw", uri=True, timeout=60)) as database:
            return dict(database.execute(_DELETED_FIRST, (RUN_ID_TAG,)))
    except sqlite3.Error as error:
        raise Failure(file, f"cannot be read ({one_line(error)}); is it MLflow's? restore it, or wait") from error


def all_pages(search: Callable[..., Any], *given: Any, **options: Any) -> Iterator[Any]:
    """Whatever one of MLflow's searches finds, page by page."""
    token = None
    while True:
        page = search(*given, **options, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def lanes_elsewhere(run: Tracked, destinations: Destinations, known: Known) -> list[str]:
    """The lanes that have less of the run than its folder says; what could not be asked is believed."""
    lanes, found = State(run).lanes, []
    noted = lanes.get(destinations.mlflow_lane, {})
    if noted.get("sent") and isinstance(known, Mapping):
        here = known.get(run.id)
        if here is None or noted.get("there", here) != here:
            found.append(destinations.mlflow_lane)
    lane = destinations.tensorboard_lane
    noted = lanes.get(lane, {})
    if noted.get("sent") and not any((destinations.logs / run.id).rglob(f"events.*{noted.get('there', '')}")):
        found.append(lane)
    return found


def forget_elsewhere(run: Tracked, destinations: Destinations, known: Known) -> None:
    """Have all of it sent there, as to a place that never had any."""
    if lanes := lanes_elsewhere(run, destinations, known):
        State(run).forget(lanes)


def check_journal(run: Tracked) -> None:
    """Raise Failure where the journal lacks what is to be sent, or is another run's."""
    records, resume = Journal(run.journal).read(), run.resume_command
    if not records:
        raise Failure(run.title, f"was not tracked; have it done: {resume}")
    if (name := records[0]["run_id"]) != run.id:
        raise Failure(run.folder, f"holds the {run.kind} {name}; give the folder that name, then sync")
    if run.is_whole and records[-1]["key"] != "end":
        raise Failure(run.journal, f"ends before its {run.kind} did; copy it again, or complete it: {resume}")


def check_configuration(run: Run) -> None:
    """Raise Failure where config.json, which has no hash, is not what the run began with: so its journal has it."""
    for record in Journal(run.journal).read()[:1]:
        now = run.config.model_dump()
        for name, began in record["params"].items():
            if now.get(name, began) != began:  # what a newer version does not know is no change
                raise Failure(
                    run.folder / "config.json",
                    f"has {name} {now[name]}, the run began with {began}; make it that again, or train anew",
                )
