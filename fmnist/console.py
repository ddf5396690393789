"""What a terminal sees: values in, tables out."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from fmnist.data.dataset import FASHION_MNIST, SPLITS, Dataset
from fmnist.errors import Failure, as_typed, program
from fmnist.predictor import Answer
from fmnist.registry import CHAMPION, Version
from fmnist.run import Result, Run
from fmnist.scores import Evaluation, Scores, class_scores

if TYPE_CHECKING:
    from fmnist.ops.finding import Finding

BAR_WIDTH = 24
MOST_ROWS = 40
NEWEST = 500  # runs and versions are listed: thousands take long to draw, and nobody reads them


def make_console(*, stderr: bool = False) -> Console:
    """A console that prints names as they are: no markup, no emoji, no highlighting. A file is as wide as need be."""
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 200
    return console


def table(*columns: str) -> Table:
    """A table in the house's style: the first column is text, the others are numbers."""
    result = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, name in enumerate(columns):
        result.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    return result


def _keep_whole(column: Column, texts: Sequence[str]) -> None:
    """What is copied and typed again is never cut, however narrow the terminal."""
    column.min_width = max(map(len, texts), default=0)


def show_data(console: Console, data: Dataset) -> None:
    """One data set: where from, how much, recognized or not."""
    what = "Fashion-MNIST, verified" if data.name == FASHION_MNIST else "your own data (not the known Fashion-MNIST)"
    console.print(Text.assemble((what, "bold"), f"  digest {data.digest[:12]}  from {data.source}"), soft_wrap=True)
    rows = table("split", "images", "classes", "fewest of a class", "most")
    for name in SPLITS:
        counts = np.bincount(data.split(name).labels, minlength=len(data.class_names))
        rows.add_row(name, f"{counts.sum():,}", str(np.count_nonzero(counts)), f"{counts.min():,}", f"{counts.max():,}")
    console.print(rows)
    console.print(f"classes: {', '.join(data.class_names)}")


def show_layers(console: Console, job: Any) -> None:
    """The layers of a job's model."""
    total, trainable = job.parameters
    rows = table("layer", "kind", "output shape", "parameters")
    rows.columns[1].justify = "left"
    for layer in job.layers:
        shape = " x ".join(map(str, layer.output_shape))
        rows.add_row(layer.name, layer.kind, shape, f"{layer.parameters:,}")
    console.print(rows)
    console.print(f"{job.run.config.model}: {total:,} parameters, {trainable:,} of them trainable\n")


def show_start(console: Console, run: Run, data: Dataset, workers: int = 1) -> None:
    """A run that is about to train."""
    about = run.about
    console.print(f"run {run.id}", style="bold")
    what = "Fashion-MNIST, verified" if data.name == FASHION_MNIST else f"your own ({data.source})"
    sizes = ", ".join(f"{len(data.split(name)):,} {name}" for name in SPLITS)
    console.print(f"images {what}: {sizes}", soft_wrap=True)
    console.print(
        f"recipe {run.config.recipe}: at most {run.config.epochs} epochs, batches of {run.config.batch_size}, "
        f"seed {run.config.seed}, on {about.device} in {about.precision}{f', by {workers} workers' * (workers > 1)}\n",
        soft_wrap=True,
    )


def show_result(console: Console, run: Run, result: Result, extra_phases: dict[str, float]) -> None:
    """The summary of a finished run: scores, classes, time, what to do next."""
    names = run.about.data["class_names"]
    kept = "" if result.best_epoch == result.epochs else f", weights of epoch {result.best_epoch}"
    console.print(Text.assemble("\n", (f"run {run.id}", "bold"), f" is done: {result.epochs} epochs{kept}"))
    rows = table("split", *Scores._fields)
    rows.add_row("validation", *_score_cells(result.val))
    rows.add_row("test", *_score_cells(result.test), style="bold")
    console.print(rows)
    show_classes(console, names, np.asarray(result.test_confusion))
    phases = extra_phases | result.phases
    total = sum(phases.values())
    times = table("where the time went", "seconds", "share")
    for name, seconds in phases.items():
        times.add_row(name, f"{seconds:.1f}", f"{seconds / total:.0%}")
    times.add_row("total", f"{total:.1f}", "", style="bold")
    console.print(times)
    console.print(f"{result.images_per_second:,.0f} images/s in training\n")
    console.print("next", style="bold")
    commands = {
        "predict PICTURE…": "what is this garment?",
        f"evaluate {run.id}": "these scores again",
        "runs": "all runs",
        "up": "all of it in your browser",
    }
    for command, purpose in commands.items():
        console.print(f"  {program()} {command:32} {purpose}", soft_wrap=True)
    console.print(f"the model: {os.path.relpath(run.model)}", soft_wrap=True)


def _score_cells(scores: Scores) -> list[str]:
    return [f"{scores.loss:.4f}", f"{scores.accuracy:.2%}", *(f"{value:.4f}" for value in scores[2:])]


def show_classes(console: Console, names: Sequence[str], confusion: Any) -> None:
    """Per-class scores, and what each class is most often taken for."""
    each = class_scores(confusion)
    rows = table("class", "precision", "recall", "f1", "images", "most often taken for")
    rows.columns[-1].justify = "left"
    mistakes = confusion - np.diag(np.diagonal(confusion))
    for index, name in enumerate(names):
        worst = int(mistakes[index].argmax())
        taken = f"{names[worst]} ({mistakes[index, worst]})" if mistakes[index, worst] else ""
        values = (each.precision[index], each.recall[index], each.f1[index])
        rows.add_row(name, *(f"{value:.4f}" for value in values), f"{each.support[index]:,}", taken)
    console.print(rows)


def show_evaluation(console: Console, model: str, split: str, names: Sequence[str], evaluation: Evaluation) -> None:
    """A model's scores on a split."""
    console.print(Text.assemble((model, "bold"), f" on {evaluation.confusion.sum():,} {split} images"), soft_wrap=True)
    rows = table("split", *Scores._fields)
    rows.add_row(split, *_score_cells(evaluation.scores))
    console.print(rows)
    show_classes(console, names, evaluation.confusion)


def show_runs(console: Console, runs: Sequence[Run]) -> None:
    """The newest runs, oldest first, with what they ended with."""
    older, runs = len(runs[:-NEWEST]), runs[-NEWEST:]
    rows = table("run", "name", "recipe", "model", "epochs", "time", "val\naccuracy", "test\naccuracy", "test\nf1")
    for column in rows.columns[1:4]:
        column.justify = "left"
    _keep_whole(rows.columns[0], [run.id for run in runs])
    for column in rows.columns[-3:]:
        column.min_width = 8
    rows.columns[1].no_wrap, rows.columns[1].min_width = False, 8  # the one that may take more lines
    for run in runs:
        try:
            about, result = run.about, run.result
        except Failure as damage:
            rows.add_row(run.id, "", "", "", "", "", "damaged", style="red")
            console.print(str(damage), style="red", soft_wrap=True)
            continue
        head = run.id, about.name or "", about.config.recipe, about.config.model
        if result is None:
            rows.add_row(*head, f"of {about.config.epochs}", "", "running" if run.is_locked else "stopped", style="dim")
        else:
            scores = f"{result.val.accuracy:.2%}", f"{result.test.accuracy:.2%}", f"{result.test.f1:.4f}"
            rows.add_row(*head, str(result.epochs), f"{result.seconds:.0f}s", *scores)
    if console.width < 100:
        rows.columns = [column for column in rows.columns if column.header not in ("time", "test\nf1")]
    console.print(rows)
    if older:
        console.print(f"and {older:,} older; --json lists them all")


def show_models(console: Console, versions: Sequence[Version], also: Sequence[Version] = ()) -> None:
    """The newest registered versions and some others, oldest first, with their aliases and scores."""
    older, listed = len(versions) > NEWEST, {version.number: version for version in (*also, *versions[-NEWEST:])}
    versions = [listed[number] for number in sorted(listed)]
    rows = table("version", "aliases", "run", "registered", "val\naccuracy", "test\naccuracy")
    for column in rows.columns[1:4]:
        column.justify = "left"
    _keep_whole(rows.columns[2], [version.run_id for version in versions])
    for version in versions:
        scores = [version.scores.get(name) for name in ("val_accuracy", "test_accuracy")]
        shown = ["" if score is None else f"{score:.2%}" for score in scores]
        moment = f"{datetime.fromtimestamp(version.created, UTC):%Y-%m-%d %H:%M} UTC"
        rows.add_row(str(version.number), ", ".join(version.aliases), version.run_id, moment, *shown)
        rows.rows[-1].style = "bold" if CHAMPION in version.aliases else None
    console.print(rows)
    if older:
        console.print("and older ones; --json lists them all")


def show_pages(console: Console, pages: Mapping[str, str], logs: Path) -> None:
    """Where each server is to be found."""
    width = max(map(len, pages))
    console.print()
    for name, address in pages.items():  # no table: it would cut a link in two
        console.print(Text.assemble((f"  {name:{width}}", "bold"), f"  {address}"), soft_wrap=True)
    console.print(f"\nCtrl-C stops them; what they say is in {os.path.relpath(logs)}/", soft_wrap=True)


def show_findings(console: Console, findings: "Sequence[Finding]") -> None:
    """What was looked at, how it is, and below it what to do; at the end, how much of it is wrong."""
    styles = {"ok": "green", "off": "dim", "warning": "yellow", "bad": "bold red"}
    width = max(len(finding.what) for finding in findings)
    for what, state, found, remedy in findings:
        console.print(Text.assemble((f"{state:7}", styles[state]), f"  {what:{width}}  {found}"), soft_wrap=True)
        if remedy:
            console.print(f"{'':{width + 9}}  → {as_typed(remedy)}", soft_wrap=True, style="bold")
    states = [finding.state for finding in findings]
    told = [f"{states.count(state)} {state}" for state in ("bad", "warning") if state in states]
    console.print(f"\n{', '.join(told) or 'all is well'}", style="bold")


def show_answers(console: Console, names: Sequence[str], answers: Sequence[Answer]) -> None:
    """A row a picture: what it is taken for, and how surely."""
    rows = table("picture", "garment", "probability", "", "else")
    for column in (rows.columns[1], *rows.columns[3:]):
        column.justify = "left"
    rows.columns[0].no_wrap, rows.columns[0].overflow = False, "fold"
    for name, answer in list(zip(names, answers, strict=True))[:MOST_ROWS]:
        others = [f"{label} {value:.0%}" for label, value in list(answer.probabilities.items())[1:3] if value >= 0.005]
        rows.add_row(name, answer.label, f"{answer.probability:.1%}", bar(answer.probability), ", ".join(others))
    console.print(rows)
    if len(answers) > MOST_ROWS:
        console.print(f"and {len(answers) - MOST_ROWS:,} more; --json lists them all")


def bar(share: float) -> Text:
    """A share between 0 and 1 as a bar of BAR_WIDTH cells, in eighths of a cell."""
    eighths = round(share * BAR_WIDTH * 8)
    drawn = "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]
    return Text(drawn.ljust(BAR_WIDTH), style="green" if share >= 0.5 else "yellow")


def show_service(console: Console, address: str) -> None:
    """Where the service is, for a person; a container's log is for programs."""
    if not console.is_terminal:
        return
    console.print(f"\n  page         {address}/\n  programs     {address}/docs\n\nCtrl-C stops it", highlight=False)
