"""The verbs that keep a workspace well: what is wrong with it, what is kept elsewhere, what may go."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import psutil
import typer
from rich.console import Console

from fmnist import console as show
from fmnist.cli import Json, app, print_json
from fmnist.errors import UserError, as_typed, listing, one_line, program
from fmnist.ports import Port
from fmnist.progress import print_notice
from fmnist.settings import checkout_root
from fmnist.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from fmnist.ops.doctor import Patient
    from fmnist.ops.sets import Manifest

DAYS = 7
"""What is younger is left alone by `gc`."""


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="mend what is safe to mend, and look again")] = False,
    as_json: Json = False,
) -> None:
    """Look at all that this workspace and its platform depend on, and say what to do about what is wrong.

    --fix keeps others out of secrets, removes what killed processes left, and sends records that were not sent.
    """
    from fmnist.ops.doctor import examine
    from fmnist.ops.finding import is_well
    from fmnist.ops.mending import mend

    patient = _patient(open_workspace(print_notice))
    findings = examine(patient, time.time() - psutil.Process().create_time())
    mended = []
    for told in mend(patient, findings) if fix else ():
        print_notice(told)
        mended.append(told)
    if mended:
        findings = examine(patient)
    if as_json:
        found = [finding._asdict() for finding in findings]
        print_json({"well": is_well(findings), "findings": found, **({"mended": mended} if fix else {})})
    else:
        show.show_findings(show.make_console(), findings)
    if not is_well(findings):
        raise typer.Exit(1)


def _patient(workspace: Workspace) -> "Patient":
    from fmnist.ops.doctor import Patient

    settings = workspace.settings
    fields = {
        "MLflow": "mlflow_port",
        "TensorBoard": "tensorboard_port",
        "JupyterLab": "notebook_port",
        "Service": "service_port",
    }
    ports = {name: Port(name, getattr(settings, field), settings.variable(field)) for name, field in fields.items()}
    return Patient(
        settings.home,
        workspace.destinations,
        checkout_root(Path.cwd()),
        ports,
        settings.data,
        may_fetch=settings.download,
        is_tracked=settings.tracking,
        key_file=settings.api_key_file,
    )


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
    console.print(f"put it back with: {program()} restore {made}", soft_wrap=True)


def _show_set(console: Console, place: Path, manifest: "Manifest") -> None:
    console.print(f"{place}: whole, {manifest.size / 1e6:,.1f} MB, made {manifest.made}", soft_wrap=True)
    for name, count in manifest.counts.items():
        console.print(f"  {name.replace('_', ' '):18} {count:>10,}")


@app.command()
def upgrade(
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="where the backup set is made (without it: var/backups)")
    ] = None,
) -> None:
    """Move MLflow's own database on to what the MLflow here reads; a backup is kept first. Stop all else meanwhile."""
    from fmnist.ops.upgrade import upgrade as move_on

    workspace, root = open_workspace(print_notice), checkout_root(Path.cwd())
    home, own = workspace.settings.home, workspace.destinations
    notebooks = root / "notebooks" if root else None
    before, now, made = move_on(home, own.mlflow_uri, own.model_name, notebooks, to or home / "backups")
    console = show.make_console()
    if made is None:
        console.print(f"{one_line(own.mlflow_uri)}: its schema is current ({now})", soft_wrap=True)
        return
    console.print(f"upgraded: schema {before} -> {now}; what was before is kept in {made}", soft_wrap=True)


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
    ops.check_target(workspace.destinations.mlflow_uri, home)
    if ops.finish(home):
        console.print("a restore that was cut off is finished now")
        return
    if chosen is None:
        raise UserError("restore", f"takes a set; there are {listing(ops.sets_in(home / 'backups'))}")
    asked = f"{home} holds runs. Replace them (they are kept)? Type yes: "
    if ops.parts_in(home) and not yes and not (sys.stdin.isatty() and input(asked).strip() == "yes"):
        raise UserError("nothing was restored", "that takes a yes at the terminal, or --yes")
    manifest, kept = ops.restore(chosen, home, workspace.settings.model_name)
    _show_set(console, chosen, manifest)
    console.print(f"restored into {home}" + (f"; what was there is in {kept}" if kept else ""), soft_wrap=True)


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
            console.print(as_typed(line), soft_wrap=True)
        if pieces and not yes:
            age = "" if older_than == DAYS else f" --older-than {older_than}"
            console.print(f"do it with: {program()} gc{age} --yes", soft_wrap=True, style="bold")
    failures += [found.trouble] if found.trouble else []
    for failure in failures[1:]:
        print_notice(str(failure))
    if failures:
        raise failures[0]
