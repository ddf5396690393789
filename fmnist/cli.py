"""The command line: a verb a function, thin. Results go to stdout, what happens meanwhile to stderr."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fmnist import __version__
from fmnist import console as show
from fmnist.data.dataset import SPLITS
from fmnist.errors import Interrupted, Stopped, UserError, listing
from fmnist.job import check_request
from fmnist.progress import Live, print_notice
from fmnist.recipe import make_config
from fmnist.registry import CHAMPION
from fmnist.run import LATEST, Run, check_same_config
from fmnist.workspace import open_workspace


class _Verbs(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Stopped(str(stop) if isinstance(stop, Interrupted) else "interrupted") from stop


app = typer.Typer(
    cls=_Verbs,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fashion MNIST as a Service: train, score and use a model of garments.",
    epilog="Errors are one line; --debug adds the traceback. Settings: docs/settings.md.",
)

Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", readable=False, help="folder with two CSV or four IDX files")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="champion, a version, a run (id or latest), models:/NAME@ALIAS, or an .onnx file",
    ),
]


def print_json(values: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")


@app.command()
def data(folder: DataFolder = None, as_json: Json = False) -> None:
    """Get the data, verify them, and say what they are."""
    found = open_workspace(print_notice).load_data(folder)
    if as_json:
        splits = {name: len(found.split(name)) for name in SPLITS}
        facts: dict[str, Any] = {"name": found.name, "source": found.source, "digest": found.digest}
        print_json(facts | {"class_names": found.class_names, "images": splits})
    else:
        show.show_data(show.make_console(stderr=as_json), found)


@app.command()
def train(
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="fast (the default), original, resnet, or a sweep's best.json")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="cnn, resnet, or module:function of your own")
    ] = None,
    epochs: Annotated[str | None, typer.Option(metavar="N", help="passes over the training images, at most")] = None,
    batch_size: Annotated[str | None, typer.Option(metavar="N", help="images a step")] = None,
    learning_rate: Annotated[str | None, typer.Option(metavar="X", help="the schedule's highest")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="mirror half of the images, or none")] = None,
    precision: Annotated[str | None, typer.Option(metavar="NAME", help="auto, fp32 or bf16")] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="start of all randomness but for the split's")] = None,
    folder: DataFolder = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="auto (the default), cpu or cuda")] = None,
    workers: Annotated[int, typer.Option(metavar="N", help="processes that share each batch, on Ray")] = 1,
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Ray's: auto, HOST:PORT or ray://HOST:PORT; without it, this machine"),
    ] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="go on with a run: its id, or latest")] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="a name for the run")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="K=V", help="a tag for the run; may be given again")] = None,
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="a sentence on the run")] = None,
    as_json: Json = False,
) -> None:
    """Train a model, score it, save the run."""
    changes = {
        "model": model,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "flip": flip,
        "precision": precision,
        "seed": seed,
    }
    about = {"name": name, "tags": _tags(tag or []), "note": note}
    _train(recipe, changes, about, folder, device, (workers, address), resume, as_json)


def _train(
    recipe: str | None,
    changes: dict[str, Any],
    about: dict[str, Any],
    folder: Path | None,
    device: str | None,
    where: tuple[int, str | None],
    resume: str | None,
    as_json: bool,
) -> None:
    started = time.perf_counter()
    workspace, console = open_workspace(print_notice), show.make_console(stderr=as_json)
    given = {name: value for name, value in changes.items() if value is not None}
    config = make_config(recipe or "fast", **given)
    check_request(config, device or "auto")
    run = workspace.run_to_resume(resume) if resume is not None else None
    if run:
        asked = {name: getattr(config, name) for name in given} | ({"recipe": recipe} if recipe else {})
        _check_own(run, asked | {key: value for key, value in about.items() if value})
    with workspace.team(run or config, *where) as team:
        hired = time.perf_counter()
        found = workspace.load_data(folder) if folder is not None or run is None else None
        loaded = time.perf_counter()
        if run:
            job = workspace.resume(run.id, found, device, team)
        else:
            assert found is not None
            job = workspace.new_run(config, found, device or "auto", team, **about)
        phases = {}
        if not workspace.is_over(job.run):
            show.show_start(console, job.run, job.data, team.size if team else 1)
            show.show_layers(console, job)
            phases = {"data": loaded - hired, "starting up": time.perf_counter() - loaded + hired - started}
        workspace.train(job, Live(console))
    result = job.run.result
    assert result is not None
    if as_json:
        print_json(job.run.outcome())
    else:
        show.show_result(console, job.run, result, phases)


def _check_own(run: Run, given: dict[str, Any]) -> None:
    """Raise UserError where a run that goes on is given what it does not have."""
    about = run.about
    own = about.config.model_dump() | {"name": about.name, "tags": about.tags, "note": about.note}
    check_same_config(run, {name: (own[name], value) for name, value in given.items() if own[name] != value})


def _tags(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if not pair.partition("=")[0].strip() or "=" not in pair:
            raise UserError(f"--tag {pair!r}", "is no pair; give it as KEY=VALUE")
        if pair.strip().startswith(("fmnist.", "mlflow.")):
            raise UserError(f"--tag {pair!r}", "begins as the platform's own tags do; choose another key")
    return {key.strip(): value for key, _, value in (pair.partition("=") for pair in pairs)}


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]", help="champion, a version, a run (id or latest), models:/NAME@ALIAS, or an .onnx file"
        ),
    ] = LATEST,
    split: Annotated[str, typer.Option(metavar="NAME", help="train, validation or test")] = "test",
    folder: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Score a model on a whole split."""
    if split not in SPLITS:
        raise UserError(f"--split {split}", f"there is no such split; give {listing(SPLITS)}")
    workspace = open_workspace(print_notice)
    data = None if folder is None else workspace.load_data(folder)
    predictor, evaluation = workspace.evaluate(model, split, data)
    if as_json:
        values: dict[str, Any] = {"model": str(predictor.path), "split": split, **evaluation.scores._asdict()}
        print_json(values | {"confusion": evaluation.confusion.tolist()})
    else:
        show.show_evaluation(show.make_console(stderr=as_json), model, split, predictor.class_names, evaluation)


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="PNG, JPEG, WebP, or an IDX file of many")],
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Say what garment is in each picture."""
    from fmnist.imaging import read_pictures

    workspace = open_workspace(print_notice)
    predictor = workspace.predictor(model or (CHAMPION if workspace.registry.has_champion() else LATEST))
    names, answers = [], []
    for path in files:
        pictures = read_pictures(path)
        answers += predictor.predict(pictures)
        names += [str(path)] if len(pictures) == 1 else [f"{path} #{number + 1}" for number in range(len(pictures))]
    if as_json:
        rows = [{"picture": name, **answer._asdict()} for name, answer in zip(names, answers, strict=True)]
        print_json({"model": str(predictor.path), "predictions": rows})
    else:
        show.show_answers(show.make_console(stderr=as_json), names, answers)


def _version(asked: bool) -> None:
    if asked:
        show.make_console().print(f"fmnist {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="with any verb: tracebacks of errors")] = False,
) -> None: ...
