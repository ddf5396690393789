"""What lies in a workspace: data, records of runs, what killed processes left."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fmnist.data import inspect_data
from fmnist.data.cache import DamagedCacheError
from fmnist.data.dataset import FASHION_MNIST
from fmnist.data.sources import WHAT_TO_GIVE
from fmnist.errors import Failure, UserError, one_line
from fmnist.files import is_locked, left_scratch, read_sealed
from fmnist.ops.finding import Finding, complaint
from fmnist.ops.sets import MANIFEST
from fmnist.registry import database_file
from fmnist.run import Run, list_runs
from fmnist.sweep import Sweep, list_tracked
from fmnist.tracking.elsewhere import Known, ask_mlflow, lanes_elsewhere
from fmnist.tracking.shipper import is_pending
from fmnist.tracking.wiring import Destinations

FIX = "fmnist doctor --fix"
OLD = timedelta(days=7)


def data(folder: Path, home: Path, *, may_fetch: bool) -> Finding:
    """What a training would have, read and compared with its hashes. Nothing is fetched."""
    try:
        found = inspect_data(folder, home / "data")
    except DamagedCacheError as damage:
        return Finding("data", "warning", f"the cache: {one_line(damage)}", "the next training makes it anew")
    except UserError as error:
        return complaint("data", "bad", error)
    if found is None and may_fetch:
        return Finding("data", "off", "Fashion-MNIST is not fetched yet; the first training does that")
    if found is None:
        told = f"none in {folder}, and FMNIST_DOWNLOAD forbids to fetch them"
        return Finding("data", "bad", told, f"put there {WHAT_TO_GIVE}")
    what = "Fashion-MNIST, verified" if found.name == FASHION_MNIST else f"your own ({found.digest[:12]})"
    sizes = f"{len(found.train) + len(found.validation):,} images to train with, {len(found.test):,} to test"
    return Finding("data", "ok", f"{what}: {sizes}")


def records(home: Path, destinations: Destinations, *, tracked: bool) -> Finding:
    """Whether MLflow and TensorBoard have what the runs' journals hold."""
    if not tracked:
        return Finding("records", "off", "FMNIST_TRACKING is no")
    try:
        left = left_behind(home, destinations)
    except Failure as damage:
        return complaint("records", "bad", damage)
    if not (runs := list_tracked(home)):
        return Finding("records", "off", "no runs yet")
    if not left:
        return Finding("records", "ok", f"MLflow and TensorBoard have all of {_counted(len(runs))}")
    told = f"MLflow or TensorBoard lacks something of {_counted(len(left))}"
    return Finding("records", "warning", told, f"fmnist sync, or {FIX}")


def left_behind(home: Path, destinations: Destinations) -> list[Run | Sweep]:
    """The runs whose records are not all sent, and that nobody trains or sends now. Raises Failure for damage."""
    runs = list_tracked(home)
    known = known_here(destinations, runs)
    return [
        run
        for run in runs
        if not run.is_locked
        and not is_locked(run.folder / "shipping.lock")
        and (is_pending(run, destinations.sinks(run)) or lanes_elsewhere(run, destinations, known))
    ]


def known_here(destinations: Destinations, runs: Sequence[Run | Sweep]) -> Known:
    """What MLflow has, where its database is at hand: to ask a server for all its runs takes too long."""
    if database_file(destinations.mlflow_uri) is None:
        return UserError(destinations.mlflow_uri, "is not asked; fmnist sync does")
    return ask_mlflow(destinations, runs)


def backup(home: Path, verb: str) -> Finding:
    """How old the newest set is, in the usual place; sets may be kept elsewhere, so that none is here is no fault."""
    place = home / "backups"
    if not (runs := list_runs(home / "runs")):
        return Finding("backup", "off", "no runs yet")
    made = [datetime.fromisoformat(json.loads(read_sealed(file))["made"]) for file in place.glob(f"*/{MANIFEST}")]
    if not made:
        return Finding("backup", "off", f"no set in {place}", verb)
    newer = sum(run.id > f"{max(made):%Y%m%d-%H%M%S}" for run in runs)  # ids begin with the time
    told = f"the newest set is of {max(made):%Y-%m-%d %H:%M} UTC, {_counted(newer)} newer"
    is_old = newer and datetime.now(UTC) - max(made) > OLD
    return Finding("backup", "off" if is_old else "ok", told, verb if is_old else "")


def leftovers(home: Path) -> Finding:
    if not (found := left_over(home)):
        return Finding("leftovers", "ok", "none of processes that were killed")
    return Finding("leftovers", "warning", f"temporary folders of processes that were killed: {len(found)}", FIX)


def left_over(home: Path) -> list[Path]:
    """Temporary folders that nobody works in any more."""
    return [left for parent in (home, *home.glob("*/")) for left in left_scratch(parent)]


def _counted(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"
