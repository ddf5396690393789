"""The verbs that look after what is there: runs, and the models they gave."""

from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from fmnist import console as show
from fmnist.cli import Json, Model, app, print_json
from fmnist.errors import Failure, UserError, as_typed
from fmnist.progress import print_notice
from fmnist.registry import CHAMPION, PREVIOUS
from fmnist.run import Run
from fmnist.sweep import PREFIX, Sweep, find_sweep, list_tracked
from fmnist.tracking.elsewhere import ask_mlflow, forget_elsewhere
from fmnist.tracking.journal import Journal
from fmnist.workspace import Workspace, open_workspace


@app.command()
def models(as_json: Json = False) -> None:
    """List the registered models."""
    registry = open_workspace(print_notice).registry
    if as_json:
        print_json({"versions": [asdict(version) for version in registry.versions()]})
    elif versions := registry.versions(most=show.NEWEST + 1):
        aliased = [registry.look_up(alias) for alias in (CHAMPION, PREVIOUS)] if len(versions) > show.NEWEST else []
        show.show_models(show.make_console(), versions, [version for version in aliased if version])
    else:
        show.make_console().print(as_typed("no models yet; train one: fmnist train"))


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
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN…]", help="ids of runs or sweeps, or latest; all, without any")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="go on until the training is over")] = False,
    again: Annotated[bool, typer.Option("--again", help="send all anew, to a place that has lost it")] = False,
) -> None:
    """Send what MLflow and TensorBoard do not have yet."""
    workspace = open_workspace(print_notice)
    chosen = [_find(workspace, reference) for reference in runs] if runs else list_tracked(workspace.settings.home)
    known = {} if follow or again else ask_mlflow(workspace.destinations, chosen)
    left: list[Failure | UserError] = []
    for run in chosen:
        try:
            records = Journal(run.journal).read()
            if not runs and not records:
                continue  # it was not meant to be tracked
            if not follow and not again:
                forget_elsewhere(run, workspace.destinations, known)
            errors = workspace.sync(run, follow=follow, again=again)
        except Failure as busy:
            left.append(busy)
            continue
        left += [Failure(f"{run.title}, {lane}", error) for lane, error in errors.items()]
        if follow:
            records = Journal(run.journal).read()  # there are more by now
        unfinished = "" if records and records[-1]["key"] == "end" else " that is here; it is not finished"
        print_notice(f"{run.title}: {'not all is sent' if errors else f'all is sent{unfinished}'}")
    if isinstance(known, Failure | UserError) and not left:
        left.append(known)
    for failure in left[1:]:
        print_notice(str(failure))
    if left:
        raise left[0]


def _find(workspace: Workspace, reference: str) -> Run | Sweep:
    """A run, or a sweep by its id."""
    if reference.startswith(PREFIX):
        return find_sweep(workspace.sweeps_root, reference)
    return workspace.find_run(reference)


@app.command()
def runs(as_json: Json = False) -> None:
    """List all runs with their scores."""
    found = open_workspace(print_notice).runs()
    if as_json:
        print_json({"runs": [run.summary() for run in found]})
    elif found:
        show.show_runs(show.make_console(stderr=as_json), found)
    else:
        show.make_console(stderr=as_json).print(as_typed("no runs yet; make one: fmnist train"))


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
    cluster: Annotated[bool, typer.Option("--cluster", help="in replicas, on Ray Serve")] = False,
    replicas: Annotated[
        str | None, typer.Option(metavar="N", help="how many, or MIN..MAX, as requests ask for; 1 by default")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="of a Ray cluster; one of this machine's own by default")
    ] = None,
) -> None:
    """Answer over HTTP, with the champion, until Ctrl-C; the page for people is at /."""
    from fmnist.cluster.serving import Replicas
    from fmnist.serve.wiring import run_service

    for option, value in (("--replicas", replicas), ("--address", address)):
        if value is not None and not cluster:
            raise UserError(f"{option} {value}", "is for a cluster; give --cluster too")
    wanted = Replicas.of(replicas or "1") if cluster else None
    workspace, console = open_workspace(print_notice), show.make_console(stderr=True)
    ready = partial(show.show_service, console)
    run_service(workspace, model or CHAMPION, host, port, ready, wanted, address)
