"""A run on disk: its id, its folder, its lock, and what it ended with.

var/runs/<id>/config.json      what was asked for: recipe, data, device
              checkpoint       the last epoch that was completed, with its records
              model.onnx       the trained model
              result.json      the scores; a run that has it is finished
              report/          what was sent to MLflow of its end: scores by class, the worst mistakes, a golden batch
"""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator
from typing_extensions import TypedDict  # pydantic wants it before Python 3.12

from fmnist.errors import Failure, UserError, listing
from fmnist.files import make_folder, sha256_of, sync, write_whole
from fmnist.recipe import TrainConfig, from_record
from fmnist.scores import Scores
from fmnist.tracked import Tracked, adapter

LATEST = "latest"
RUN_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{5}")
"""What `create_run` names runs."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished run ended with."""

    epochs: int
    """Completed, those before a resume included."""
    best_epoch: int
    """Whose weights the model has."""
    seconds: float
    """From the first step to the end of the last epoch, validation included."""
    images_per_second: float
    """Training images over the time in training steps."""
    phases: dict[str, float]
    """Where the time went: name -> seconds."""
    val: Scores
    test: Scores
    test_confusion: list[list[int]]
    """[C][C] counts: rows are the true classes, columns the predicted ones."""
    model_sha256: str
    ended: float | None = None  # Unix time


class AboutData(TypedDict):
    """The data set of a run."""

    name: str
    source: str
    digest: str
    class_names: list[str]


@dataclass(frozen=True, kw_only=True)
class About:
    """What is known of a run when it starts."""

    created: str
    """ISO 8601, UTC."""
    config: Annotated[TrainConfig, BeforeValidator(from_record)]
    data: AboutData
    device: str
    precision: str
    workers: int = 1
    """That trained it first: a resume may have others."""
    name: str | None = None
    note: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run(Tracked):
    """One training: a folder whose name is its id."""

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def model(self) -> Path:
        """The trained model, one ONNX file."""
        return self.folder / "model.onnx"

    @cached_property
    def about(self) -> About:
        """config.json. Raises Failure where it cannot be read."""
        return self.read("config.json", About)

    @property
    def config(self) -> TrainConfig:
        return self.about.config

    @property
    def finished(self) -> bool:
        return (self.folder / "result.json").exists()

    @property
    def is_whole(self) -> bool:
        """Whether it has its result and its model."""
        return self.finished and self.model.exists()

    @property
    def result(self) -> Result | None:
        """result.json, or None while the run is not finished."""
        return self.read("result.json", Result) if self.finished else None

    def outcome(self) -> dict[str, Any]:
        """What a finished run ended with, as plain values for programs."""
        result = self.result
        assert result is not None
        numbers = {name: getattr(result, name) for name in ("epochs", "seconds", "images_per_second")}
        scores = {"val": result.val._asdict(), "test": result.test._asdict()}
        return {"run_id": self.id, **numbers, **scores, "model": str(self.model)}

    def summary(self) -> dict[str, Any]:
        """What is known of the run, finished or not, as plain values; of a damaged one, what is wrong with it."""
        try:
            about, outcome = self.about, self.outcome() if self.finished else {}
        except Failure as damage:
            return {"run_id": self.id, "finished": False, "damaged": str(damage)}
        head = {name: getattr(about, name) for name in ("name", "created", "tags", "note")}
        return {"run_id": self.id, **head, "config": about.config.model_dump(), "finished": self.finished, **outcome}

    def write_result(self, result: Result) -> None:
        """Mark the run as finished."""
        values = asdict(result) | {name: getattr(result, name)._asdict() for name in ("val", "test")}
        write_whole(self.folder / "result.json", json.dumps(values, indent=1))

    def verified_model(self) -> Path:
        """The model's path, once its SHA-256 is the one that the run ended with. Raises UserError or Failure."""
        result = self.result
        if result is None or not self.model.exists():
            raise UserError(f"run {self.id}", f"has no model yet; finish it: fmnist train --resume {self.id}")
        if sha256_of(self.model) != result.model_sha256:
            raise Failure(self.model, "is damaged: its SHA-256 is not the one its run ended with; restore it")
        return self.model

    def __repr__(self) -> str:
        result = self.result
        if result is None:
            return f"Run({self.id}, {self.config.recipe}, not finished)"
        scores = f"validation {result.val.accuracy:.2%}, test {result.test.accuracy:.2%}"
        return f"Run({self.id}, {self.config.recipe}, {result.epochs} epochs, {scores})"


def checked(model: Path) -> Path:
    """`model`; one in the folder of a finished run only if it is what that ended with. Raises Failure."""
    run = Run(model.resolve().parent)
    if run.finished and model.resolve() == run.model.resolve():
        run.verified_model()
    return model


def create_run(root: Path, about: About) -> Run:
    """A new run in the folder of runs `root`, its configuration written."""
    moment = datetime.fromisoformat(about.created)
    run = Run(make_folder(root) / f"{moment:%Y%m%d-%H%M%S}-{moment.microsecond // 1000:03}{secrets.token_hex(1)}")
    try:
        run.folder.mkdir()
        sync(root)  # or a power cut takes the folder, with every checkpoint that was synced in it
    except OSError as error:
        raise Failure(run.folder, f"cannot be made ({error.strerror}); make room or mend the folder") from error
    try:
        write_whole(run.folder / "config.json", adapter(About).dump_json(about, indent=1))
    except Failure:
        run.folder.rmdir()
        raise
    return run


def list_runs(root: Path) -> list[Run]:
    """All runs in the folder `root`, oldest first: ids begin with the time. None is read, one may be damaged."""
    return sorted((Run(path.parent) for path in root.glob("*/config.json")), key=lambda run: run.id)


def find_run(root: Path, reference: str, *, finished: bool = False) -> Run:
    """The run with this id (or an unambiguous beginning of one), or the `latest`. Raises UserError.

    With `finished`, `latest` passes over runs that have no result yet.
    """
    runs = list_runs(root)
    if reference == LATEST:
        candidates = [run for run in runs if run.finished or not finished]
        if not candidates:
            kind = "finished run" if finished else "run"
            raise UserError(f"run {reference!r}", f"there is no {kind} in {root} yet; make one: fmnist train")
        return candidates[-1]
    matching = [run for run in runs if run.id.startswith(reference)] if reference else []
    exact = [run for run in matching if run.id == reference]
    if len(found := exact or matching) == 1:
        return found[0]
    problem = f"could be any of {', '.join(run.id for run in found)}" if found else f"there is no such run in {root}"
    if RUN_ID.fullmatch(reference) and (root / reference).is_dir():
        raise UserError(root / reference, "has no config.json, so it is no whole run; copy its folder again")
    raise UserError(f"run {reference!r}", f"{problem}; fmnist runs lists them")


def check_same_config(run: Run, differences: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise UserError where a resume asks for another configuration than the run's own."""
    if differences:
        listed = listing(f"{name} {asked!r} (the run has {own!r})" for name, (own, asked) in differences.items())
        raise UserError(f"run {run.id}", f"cannot go on with {listed}; leave that out, or start a new run")
