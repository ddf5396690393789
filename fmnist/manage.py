"""The verbs that look after what is there: runs, and the models they gave."""

import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fmnist import console as show
from fmnist.cli import Json, Model, app, print_json
from fmnist.errors import Failure, UserError, listing
from fmnist.progress import print_notice
from fmnist.registry import CHAMPION
from fmnist.settings import checkout_root
from fmnist.tracking.journal import Journal
from fmnist.workspace import open_workspace

if TYPE_CHECKING:
    from fmnist.ops.sets import Manifest

DAYS = 7
"""What is younger is left alone by `gc`."""


@app.command()
def models(as_json: Json = False) -> None:
    """List the registered models."""
    versions = open_workspace(print_notice).registry.versions()
    if as_json:
        print_json({"versions": [asdict(version) for version in versions]})
    elif versions:
        show.show_models(show.make_console(), versions)
    else:
        show.make_console().print("no models yet; train one: fmnist train")


@app.command()
def promote(version: Annotated[str, typer.Argument(metavar="VERSION|RUN", help="its number, or a run's id")]) -> None:
    """Make a model the champion; the one before is remembered."""
    now = open_workspace(print_notice).registry.promote(version)
    show.make_console().print(f"version {now.number} is the champion")


@app.command()
def rollback() -> None:
    """Make the previous champion the champion again."""
    now = open_workspace(print_notice).registry.rollback()
    show.make_console().print(f"version {now.number} is the champion again")


@app.command()
def sync(
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN…]", help="ids, or latest; all, without any")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="go on until the training is over")] = False,
    again: Annotated[bool, typer.Option("--again", help="send all anew, to a place that has lost it")] = False,
) -> None:
    """Send what MLflow and TensorBoard do not have yet."""
    workspace = open_workspace(print_notice)
    chosen = [workspace.find_run(reference) for reference in runs] if runs else workspace.runs()
    left: list[Failure] = []
    for run in chosen:
        try:
            if not runs and not Journal(run.journal).has("start"):
                continue  # it was not meant to be tracked
            errors = workspace.sync(run, follow=follow, again=again)
        except Failure as busy:
            left.append(busy)
            continue
        left += [Failure(f"run {run.id}, {lane}", error) for lane, error in errors.items()]
        print_notice(f"run {run.id}: {'not all is sent' if errors else 'all is sent'}")
    for failure in left[1:]:
        print_notice(str(failure))
    if left:
        raise left[0]


@app.command()
def runs(as_json: Json = False) -> None:
    """List all runs with their scores."""
    found = open_workspace(print_notice).runs()
    if as_json:
        print_json({"runs": [run.summary() for run in found]})
    elif found:
        show.show_runs(show.make_console(stderr=as_json), found)
    else:
        show.make_console(stderr=as_json).print("no runs yet; make one: fmnist train")


@app.command()
def up() -> None:
    """Run MLflow, TensorBoard, JupyterLab and the service until Ctrl-C.

    Where they listen: FMNIST_HOST, FMNIST_MLFLOW_PORT, FMNIST_TENSORBOARD_PORT, FMNIST_NOTEBOOK_PORT,
    FMNIST_SERVICE_PORT.
    """
    from fmnist.embedded import run_servers

    workspace, console = open_workspace(print_notice), show.make_console()
    with suppress(KeyboardInterrupt):  # the usual way to end it, no interruption
        run_servers(
            workspace.settings,
            workspace.destinations,
            ready=lambda pages, logs: show.show_pages(console, pages, logs),
            notice=print_notice,
        )
    console.print("\nall is stopped")


@app.command()
def serve(
    model: Model = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="where to listen; 127.0.0.1 by default")] = None,
    port: Annotated[int | None, typer.Option(metavar="N", min=1, max=65535, help="8000 by default")] = None,
) -> None:
    """Answer over HTTP, with the champion, until Ctrl-C; the page for people is at /."""
    from fmnist.serve.wiring import run_service

    workspace, console = open_workspace(print_notice), show.make_console(stderr=True)
    run_service(workspace, model or CHAMPION, host, port, lambda address: show.show_service(console, address))


@app.command()
def backup(
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="where sets are kept; var/backups by default")] = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="SET", help="examine a set that is there, and make none")
    ] = None,
) -> None:
    """Keep a set of all runs, models, records and notebooks; a training may go on meanwhile."""
    from fmnist.ops.backup import back_up
    from fmnist.ops.sets import verified

    console = show.make_console()
    if verify:
        _show_set(console, verify, verified(verify))
        return
    workspace, root = open_workspace(print_notice), checkout_root(Path.cwd())
    home = workspace.settings.home
    notebooks = root / "notebooks" if root else None
    made, manifest = back_up(home, workspace.destinations.mlflow_uri, notebooks, to or home / "backups")
    _show_set(console, made, manifest)
    console.print(f"put it back with: fmnist restore {made}", soft_wrap=True)


def _show_set(console: Console, place: Path, manifest: "Manifest") -> None:
    console.print(f"{place}: whole, {manifest.size / 1e6:,.1f} MB, made {manifest.made}", soft_wrap=True)
    for name, count in manifest.counts.items():
        console.print(f"  {name.replace('_', ' '):18} {count:>10,}")


@app.command()
def restore(
    chosen: Annotated[
        Path | None, typer.Argument(metavar="SET", help="a folder that fmnist backup made", readable=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Put a set in the place of what is here, which is kept; into any workspace, on any machine."""
    from fmnist.ops import restore as ops

    workspace = open_workspace(print_notice, to_restore=True)
    home, console = workspace.settings.home, show.make_console()
    ops.check_target(workspace.destinations.mlflow_uri)
    if ops.finish(home):
        console.print("a restore that was cut off is finished now")
        return
    if chosen is None:
        raise UserError("restore", f"takes a set; there are {listing(ops.sets_in(home / 'backups'))}")
    asked = f"{home} holds runs. Replace them (they are kept)? Type yes: "
    if ops.holds_anything(home) and not yes and not (sys.stdin.isatty() and input(asked).strip() == "yes"):
        raise UserError("nothing was restored", "that takes a yes at the terminal, or --yes")
    manifest, kept = ops.restore(chosen, home, workspace.settings.model_name)
    _show_set(console, chosen, manifest)
    console.print(f"restored into {home}" + (f"; what was there is in {kept}" if kept else ""), soft_wrap=True)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look at all that this workspace and its platform depend on, and say what to do about what is wrong."""
    from fmnist.ops.doctor import Patient, examine, is_well

    workspace = open_workspace(print_notice)
    settings = workspace.settings
    ports = {
        "MLflow": settings.mlflow_port,
        "TensorBoard": settings.tensorboard_port,
        "JupyterLab": settings.notebook_port,
        "Service": settings.service_port,
    }
    findings = examine(Patient(settings.home, workspace.destinations, checkout_root(Path.cwd()), ports))
    if as_json:
        print_json({"well": is_well(findings), "findings": [finding._asdict() for finding in findings]})
    else:
        show.show_findings(show.make_console(), findings)
    if not is_well(findings):
        raise typer.Exit(1)


@app.command()
def gc(
    yes: Annotated[bool, typer.Option("--yes", help="delete it; without, only say what it would free")] = False,
    older_than: Annotated[
        int, typer.Option(metavar="DAYS", min=0, help="leave alone what is younger; 7 by default")
    ] = DAYS,
    as_json: Json = False,
) -> None:
    """Free what nobody needs any more: deleted runs, logs without a run, old checkpoints. No version loses anything."""
    from fmnist.ops.garbage import clear, find_garbage, heaps, told
    from fmnist.ops.leftovers import Yard

    workspace, console = open_workspace(print_notice), show.make_console()
    found = find_garbage(Yard(workspace.settings.home, workspace.destinations, older_than))
    pieces, failures = clear(found.pieces) if yes else (found.pieces, [])
    if as_json:
        rows = [heap._asdict() for heap in heaps(pieces)]
        print_json({"freed": yes, "bytes": sum(piece.size for piece in pieces), "kinds": rows, "left": found.kept})
    else:
        for line in told(heaps(pieces), found.kept, older_than, freed=yes):
            console.print(line, soft_wrap=True)
        if pieces and not yes:
            age = "" if older_than == DAYS else f" --older-than {older_than}"
            console.print(f"do it with: {show.program()} gc{age} --yes", soft_wrap=True, style="bold")
    failures += [found.trouble] if found.trouble else []
    for failure in failures[1:]:
        print_notice(str(failure))
    if failures:
        raise failures[0]
