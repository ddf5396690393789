"""The verb that searches for a better recipe, on the validation images alone."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fmnist import console as show
from fmnist.cli import DataFolder, Json, app, print_json
from fmnist.cluster.board import Board, show_outcome
from fmnist.cluster.planning import new_plan
from fmnist.errors import Failure, UserError, program
from fmnist.progress import Live, print_notice
from fmnist.recipe import make_config
from fmnist.registry import CHAMPION
from fmnist.run import Run
from fmnist.sweep import Plan, Sweep, Trial, create_sweep, find_sweep, ranked, start_of_sweep
from fmnist.tracking.journal import Journal, Record
from fmnist.tracking.sweep_report import PICTURE
from fmnist.tracking.tracker import JournalTracker
from fmnist.tracking.wiring import start_shipper
from fmnist.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from rich.console import Console

    from fmnist.data.dataset import Dataset

TRIALS = 20
SWEEP_TAG = "sweep"
"""Of the run that --promote trains: the sweep that its recipe is from."""


@app.command()
def sweep(
    trials: Annotated[int | None, typer.Option(metavar="N", help=f"configurations to try; {TRIALS} by default")] = None,
    epochs: Annotated[
        str | None, typer.Option(metavar="N", help="how long a trial may train; the recipe's by default")
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option(metavar="N", help="trials at a time, a processor each; all by default")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=LOW..HIGH|A,B,C", help="search a field there; may be given again"),
    ] = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="where the search begins; fast by default")] = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Ray's; without it, this machine alone")
    ] = None,
    folder: DataFolder = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="of the search and of all its trainings")] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="a name for the sweep")] = None,
    resume: Annotated[str | None, typer.Option(metavar="SWEEP", help="go on with one: its id, or latest")] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="then train the best, and make it the champion if it is better")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search for a better recipe: Ray Tune with Optuna's TPE, and ASHA, which stops what falls behind.

    Trials train and are compared on the training and validation images; the test images never reach them. Without
    --space, it is learning rate, weight decay, dropout, label smoothing and batch size that are searched.
    """
    given = {"trials": trials, "epochs": epochs, "space": space, "recipe": recipe, "seed": seed, "name": name}
    asked = {option: value for option, value in given.items() if value is not None and value != []}
    if concurrent is not None and concurrent < 1:
        raise UserError(f"--concurrent {concurrent}", "is too small; give at least 1")
    _sweep(asked, folder, resume, (address, concurrent), promote, as_json)


def _sweep(
    asked: dict[str, Any],
    folder: Path | None,
    resume: str | None,
    where: tuple[str | None, int | None],
    promote: bool,
    as_json: bool,
) -> None:
    workspace, console = open_workspace(print_notice), show.make_console(stderr=as_json)
    if promote and not workspace.settings.tracking:
        raise UserError("--promote", "needs the registry, and FMNIST_TRACKING turns tracking off; leave one out")
    what, data = _what(workspace, asked, folder, resume)
    own, found = _search(workspace, what, data, console, *where)
    outcome = _outcome(own, found)
    if not as_json:
        show_outcome(console, own.about, found)
        _show_next(console, own)
    if promote:
        outcome |= _promote(workspace, own, data, console)
    if as_json:
        print_json(outcome)


def _what(
    workspace: Workspace, asked: dict[str, Any], folder: Path | None, resume: str | None
) -> "tuple[Plan | Sweep, Dataset]":
    """What is to be done, and with which data: a new sweep as it is asked for, or one to go on with."""
    if resume is None:
        changes = {name: asked[name] for name in ("epochs", "seed") if name in asked}
        base = make_config(asked.get("recipe", "fast"), **changes)
        trials, wishes = asked.get("trials", TRIALS), asked.get("space", [])
        return new_plan(base, trials, wishes, lambda: workspace.load_data(folder), asked.get("name"))
    if asked:
        what = f"is the sweep's own, and {resume} has it already; leave it out, or start another"
        raise UserError(f"--{next(iter(asked))}", what)
    own = find_sweep(workspace.sweeps_root, resume)
    data = workspace.data_of(own) if folder is None else workspace.load_data(folder)
    workspace.check_same_data(own, data)
    return own, data


def _search(
    workspace: Workspace,
    what: Plan | Sweep,
    data: "Dataset",
    console: "Console",
    address: str | None,
    concurrent: int | None,
) -> tuple[Sweep, dict[int, Trial]]:
    """The sweep and its trials, when all are over and, for a while at most, when all is sent.

    A new one has its folder once its cluster is there.
    """
    from fmnist.cluster.sweeping import has_trials_left, joined, run_sweep
    from fmnist.cluster.trial import images_of

    board = Board(console)
    needs_cluster = isinstance(what, Plan) or has_trials_left(what)
    try:
        with joined(address, concurrent, print_notice) if needs_cluster else nullcontext() as cluster:
            own = create_sweep(workspace.sweeps_root, what) if isinstance(what, Plan) else what
            console.print(own.title, style="bold")
            console.print(f"{len(data.train):,} images to train on, {len(data.validation):,} to compare by")
            commit, wait = _tracking(workspace, own)
            found = run_sweep(own, images_of(data), commit, board, cluster)
        wait(board.phase)
    finally:
        board.end()
    return own, found


def _tracking(
    workspace: Workspace, own: Sweep
) -> tuple[Callable[[Sequence[Record]], None], Callable[[Callable[[str, float], None]], None]]:
    """(what commits records, what waits until they are sent). The journal is kept though nothing is to be sent."""

    def start() -> Record:
        return start_of_sweep(own)

    if not workspace.settings.tracking:
        journal = Journal(own.journal)
        return lambda records: journal.add_missing([start(), *records]), lambda tell: None
    home, patience = workspace.settings.home.resolve(), workspace.settings.sync_wait
    tracker = JournalTracker(own, lambda: start_shipper(own, home), print_notice, start)
    return tracker.commit, lambda tell: tracker.wait(patience, tell)


def _outcome(own: Sweep, trials: Mapping[int, Trial]) -> dict[str, Any]:
    """The sweep as plain values for programs."""
    best = ranked(trials.values())[0]
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            "epochs": len(trial.records),
            **(trial.kept or {}),
            **trial.values,
        }
        for trial in trials.values()
    ]
    values = {"sweep_id": own.id, "trials": rows, "best": best.number, "config": best.config.model_dump()}
    return values | {"recipe": str(own.best), "picture": str(own.report / PICTURE)}


def _show_next(console: "Console", own: Sweep) -> None:
    console.print("\nnext", style="bold")
    console.print(f"  {program()} train --recipe {os.path.relpath(own.best)}", soft_wrap=True)
    console.print(f"the trials, as a picture: {os.path.relpath(own.report / PICTURE)}", soft_wrap=True)


def _promote(workspace: Workspace, own: Sweep, data: "Dataset", console: "Console") -> dict[str, Any]:
    """Train the best as any run, and make its version the champion if it is better on the validation images."""
    run = next((run for run in workspace.runs() if _is_of(run, own)), None)
    if run is None:
        about: dict[str, Any] = {"name": own.about.name, "tags": {SWEEP_TAG: own.id}}
        job = workspace.new_run(make_config(str(own.best)), data, **about)
    else:
        job = workspace.resume(run.id, data)
    console.print(f"\nrun {job.run.id} trains the best", style="bold")
    workspace.train(job, Live(console))
    result = job.run.result
    assert result is not None
    told = f"run {job.run.id} has {result.val.accuracy:.2%} on the validation images"
    before = next((version for version in workspace.registry.versions() if CHAMPION in version.aliases), None)
    rival = before if before and before.run_id != job.run.id else None
    known = rival.scores.get("val_accuracy") if rival else None
    is_better = rival is None or (known is not None and round(result.val.accuracy, 6) > known)  # as it is written there
    if rival and known is None:
        console.print(f"{told}, and the champion tells no accuracy there: it stays", soft_wrap=True)
    elif rival and _digest_of_champion(workspace) != data.digest:
        is_better = False
        console.print(f"{told}, and the champion is of other data, or its file is gone: it stays", soft_wrap=True)
    elif is_better:
        try:
            now = workspace.registry.promote(job.run.id)
        except UserError as error:
            raise Failure(told, f"it is not registered yet; then: fmnist promote {job.run.id}") from error
        console.print(f"{told}: version {now.number} is the champion", soft_wrap=True)
    else:
        console.print(f"{told}, the champion {known:.2%}: it stays", soft_wrap=True)
    return {"run_id": job.run.id, "promoted": is_better, "val": result.val._asdict()}


def _digest_of_champion(workspace: Workspace) -> str | None:
    """Of the data that it was trained on; None where that can't be told."""
    with suppress(Failure, UserError):
        return workspace.predictor(CHAMPION).metadata.get("data_digest")
    return None


def _is_of(run: Run, own: Sweep) -> bool:
    with suppress(Failure):  # a damaged one is nobody's
        return run.about.tags.get(SWEEP_TAG) == own.id
    return False
