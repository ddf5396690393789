"""What nobody needs any more: found, weighed, and deleted when that is asked.

Never garbage: what a registered version comes from, a run that is being trained, is not finished or is not sent whole,
and whatever is younger than the days given. Where MLflow cannot be asked, nothing is that depends on its answer.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rich.filesize import decimal

from fmnist.errors import Failure, UserError, no_room, one_line
from fmnist.files import held_lock, is_locked
from fmnist.ops.ledger import DeletedRun, Ledger, read_ledger
from fmnist.ops.leftovers import (
    FETCHED,
    LOGS,
    SCRATCH,
    UNBEGUN,
    Piece,
    Yard,
    find_fetched,
    find_logs,
    find_scratch,
    find_unbegun,
    weight,
)
from fmnist.registry import Registry
from fmnist.run import RUN_ID, Run, list_runs
from fmnist.sweep import list_sweeps
from fmnist.tracking.journal import Journal
from fmnist.tracking.shipper import State

DELETED, CHECKPOINTS = "runs deleted in MLflow", "checkpoints of finished runs"
HERE = f"{DELETED}, here"
KINDS = {
    DELETED: "their artifacts, their folder here, their TensorBoard log",
    HERE: "their folder, their TensorBoard log",
    UNBEGUN: "no training can go on with them",
    LOGS: "neither here nor in MLflow",
    CHECKPOINTS: "their models answer without",
    FETCHED: "from MLflow, which has them no more",
    SCRATCH: "temporary folders",
}
REGISTERED, LOST = "a registered version comes from it", "MLflow does not have it any more"
SWEEP_HERE = "it is a sweep whose folder is here; remove that first"

Reasons = Mapping[str, str | None]
"""Why a run here is no garbage, whatever MLflow says of it: by its id."""


@dataclass
class Garbage:
    pieces: list[Piece] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """What one might miss among them, and why it is not."""
    trouble: Failure | UserError | None = None
    """Why MLflow could not be asked."""


class Heap(NamedTuple):
    """All pieces of a kind."""

    kind: str
    names: list[str]
    size: int
    """Bytes."""
    about: str


def heaps(pieces: Sequence[Piece]) -> list[Heap]:
    """The pieces by kind, without the kinds of which there are none."""
    by_kind = {kind: [piece for piece in pieces if piece.kind == kind] for kind in KINDS}
    return [
        Heap(kind, [piece.name for piece in own], sum(piece.size for piece in own), KINDS[kind])
        for kind, own in by_kind.items()
        if own
    ]


def told(piles: Sequence[Heap], kept: Sequence[str], days: int, *, freed: bool) -> Iterator[str]:
    """Lines for a person: what would be freed, or was, by its kind; what was left, and why."""
    total, age = decimal(sum(pile.size for pile in piles)), "1 day" if days == 1 else f"{days} days"
    yield f"{'freed' if freed else 'would free'} {total} of what is older than {age}{':' if piles else ''}"
    for kind, names, size, about in piles:
        yield f"  {kind:{max(map(len, KINDS))}}  {len(names):4}  {decimal(size):>10}   ({about})"
    yield from (f"left: {what}" for what in kept)


def find_garbage(yard: Yard) -> Garbage:
    """Look everywhere; nothing is changed."""
    found = Garbage([*find_unbegun(yard), *find_scratch(yard)])
    registry = Registry(yard.destinations.mlflow_uri, yard.destinations.model_name)
    runs = {run.id: run for run in list_runs(yard.runs)}
    try:
        if registry.is_empty_place:
            if not any(run.shipping.exists() for run in runs.values()):  # nothing was ever tracked
                return found
            raise Failure(one_line(registry.uri), "is not there; restore it, or set MLFLOW_TRACKING_URI")
        ledger = read_ledger(registry, yard.days)
    except (Failure, UserError) as error:
        found.trouble = error
        found.kept.append(f"{DELETED}, {LOGS}, {CHECKPOINTS}, {FETCHED}: only MLflow knows")
        return found
    reasons = {run.id: _reason_to_keep(run, yard, ledger) for run in runs.values()}
    reasons |= {sweep.id: SWEEP_HERE for sweep in list_sweeps(yard.home / "sweeps")}  # it would be sent again
    _add_deleted(found, yard, ledger, runs, reasons)
    _add_checkpoints(found, list(runs.values()), reasons)
    if others := {lane for run in runs.values() for lane in State(run).lanes if _is_other(lane, yard)}:
        found.kept.append(f"TensorBoard logs without a run, and fetched models: {min(others)} may know them")
    else:
        found.pieces += find_logs(yard, ledger.known | ledger.registered | set(runs))
        found.pieces += find_fetched(yard, ledger.digests)
    return found


def clear(pieces: Iterable[Piece]) -> tuple[list[Piece], list[Failure | UserError]]:
    """Delete them. Gives those that are gone, and why others are not."""
    gone: list[Piece] = []
    failures: list[Failure | UserError] = []
    for piece in pieces:
        try:
            piece.delete()
        except (Failure, UserError) as error:
            failures.append(error)
        except OSError as error:
            failures.append(Failure(piece.name, no_room(error) or f"cannot be deleted ({error.strerror}); mend that"))
        else:
            gone.append(piece)
    return gone, failures


def _reason_to_keep(run: Run, yard: Yard, ledger: Ledger) -> str | None:
    lanes = State(run).lanes
    if run.id in ledger.registered:
        return REGISTERED
    if run.is_locked or is_locked(run.folder / "shipping.lock"):
        return "it is being trained or sent"
    if not run.is_whole:
        return "it is not finished here; finish it, or remove its folder"
    try:
        if not Journal(run.journal).has("end") or not lanes or not all(lane.get("ended") for lane in lanes.values()):
            return "it is not sent whole; send it: fmnist sync"
    except Failure:
        return "its journal is damaged"
    if others := [lane for lane in lanes if _is_other(lane, yard)]:
        return f"it was sent to {others[0]} too"
    if run.id not in ledger.known:  # as after its database was restored: what is here is all there is
        return LOST
    return None if yard.is_old(run.folder) else "something in its folder is younger"


def _is_other(lane: str, yard: Yard) -> bool:
    """Whether it is another MLflow, whose versions are not known."""
    return lane.startswith("mlflow ") and lane != yard.destinations.mlflow_lane


def _add_deleted(found: Garbage, yard: Yard, ledger: Ledger, runs: Mapping[str, Run], reasons: Reasons) -> None:
    kept = Counter({REGISTERED: ledger.spared})
    beyond: list[DeletedRun] = []
    for deleted in ledger.deleted:
        sweep = deleted.run_id.rpartition("-")[0]  # of a trial
        if reason := reasons.get(deleted.run_id) or reasons.get(sweep):
            kept[reason] += 1
            continue
        here = _places(deleted.run_id, yard, runs, ledger)
        try:
            size = sum(map(weight, here)) + (ledger.size(deleted) if ledger.holds_database else 0)
        except Failure as error:  # its files are where only a server reaches them
            kept[str(error)] += 1
            continue
        if not ledger.holds_database:
            beyond.append(deleted)
        if ledger.holds_database or here:
            delete = _delete_run(deleted, runs.get(deleted.run_id), here, ledger)
            kind = DELETED if ledger.holds_database else HERE
            found.pieces.append(Piece(kind, deleted.run_id, size, delete))
    found.kept += [f"{DELETED}, {number}: {reason}" for reason, number in kept.items() if number]
    if beyond:
        found.kept.append(_told_beyond(yard, ledger, beyond))


def _places(run_id: str, yard: Yard, runs: Mapping[str, Run], ledger: Ledger) -> list[Path]:
    """What is here of a deleted run: nothing of it, where MLflow has it once more, as after `sync --again`."""
    if run_id in ledger.alive or not RUN_ID.fullmatch(run_id):  # a tag in MLflow may say anything
        return []
    log = yard.destinations.logs / run_id
    own = [runs[run_id].folder] if run_id in runs else []
    return [*own, log] if log.is_dir() and yard.is_old(log) else own


def _delete_run(deleted: DeletedRun, run: Run | None, here: list[Path], ledger: Ledger) -> Callable[[], None]:
    def delete() -> None:
        ledger.confirm(deleted)
        for place in here:
            if run and place == run.folder:
                with _held(run):  # no half of it is ever taken for a run; on a full disk there is room for a new name
                    shutil.rmtree(place.rename(place.with_name(f".scratch-{place.name}")))
            else:
                shutil.rmtree(place)
        if ledger.holds_database:
            ledger.forget(deleted)

    return delete


def _told_beyond(yard: Yard, ledger: Ledger, beyond: list[DeletedRun]) -> str:
    """What MLflow has of them can be deleted only where its database is."""
    told = f"{DELETED}, {len(beyond)}: over its API MLflow deletes nothing for good"
    if ledger.endangered:
        return f"{told}; restore the experiment of {min(ledger.endangered)} first, a registered version comes from it"
    names = ",".join(run.mlflow_id for run in beyond)
    return f"{told}; where its database is: mlflow gc --older-than {max(yard.days, 1)}d --run-ids {names}"


def _add_checkpoints(found: Garbage, runs: list[Run], reasons: Reasons) -> None:
    """Those of runs that are over, where the model is sound: they could make it again."""
    taken = {piece.name for piece in found.pieces if piece.kind in (DELETED, HERE)}
    for run in runs:
        if reasons[run.id] is None and run.id not in taken and run.checkpoint.exists():
            with suppress(Failure, UserError):
                run.verified_model()
                found.pieces.append(Piece(CHECKPOINTS, run.id, weight(run.checkpoint), _delete_checkpoint(run)))
    if number := sum(reasons[run.id] == REGISTERED and run.checkpoint.exists() for run in runs):
        found.kept.append(f"{CHECKPOINTS}, {number}: {REGISTERED}")
    if lost := [run.id for run in runs if reasons[run.id] == LOST]:
        found.kept.append(f"run folders, {len(lost)}: {LOST}; fmnist sync --again {lost[0]}, or remove the folder")


def _delete_checkpoint(run: Run) -> Callable[[], None]:
    def delete() -> None:
        with _held(run):
            run.verified_model()
            run.checkpoint.unlink()

    return delete


@contextmanager
def _held(run: Run) -> Iterator[None]:
    """Nobody else trains the run or sends it meanwhile. Raises Failure where somebody does."""
    with run.lock(), held_lock(run.folder / "shipping.lock", "fmnist gc") as other:
        if other:
            raise Failure(f"run {run.id}", f"is being sent by {other} now; wait for it")
        yield
