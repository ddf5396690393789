"""A sweep on disk: what is searched, and what its trials gave.

var/sweeps/<id>/sweep.json       what was asked for: recipe, space, budget, data
                journal.jsonl    all that happened, trial by trial, in the order in which it was committed
                trials/<number>  the checkpoint of a trial that is not over
                report/          best.json (a recipe for `fmnist train`), trials.csv, parallel_coordinates.png
"""

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from fmnist.errors import UserError
from fmnist.files import make_folder, write_whole
from fmnist.recipe import TrainConfig, from_record
from fmnist.run import LATEST, AboutData, Run, list_runs
from fmnist.space import Domain, Value, placed
from fmnist.tracked import Tracked, adapter

PREFIX = "sweep-"
SCORE = "val_accuracy"
"""What trials are compared by. Not the loss: that grows with smoothed labels, though the answers get better."""

State = Literal["running", "completed", "stopped", "diverged", "failed", "lost"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """sweep.json: what is known of a sweep when it starts."""

    created: str
    """ISO 8601, UTC."""
    base: Annotated[TrainConfig, BeforeValidator(from_record)]
    """What holds for every trial, but for what is searched."""
    space: dict[str, Domain]
    trials: int
    seed: int
    """Of the search; all trials train with the base's."""
    data: AboutData
    name: str | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep(Tracked):
    """One search: a folder whose name is its id."""

    kind: ClassVar[str] = "sweep"
    verb: ClassVar[str] = "sweep"

    @cached_property
    def about(self) -> Plan:
        """sweep.json. Raises Failure where it cannot be read."""
        return self.read("sweep.json", Plan)

    @property
    def report(self) -> Path:
        return self.folder / "report"

    @property
    def best(self) -> Path:
        """The best configuration, once the search is over."""
        return self.report / "best.json"

    @property
    def is_whole(self) -> bool:
        return self.best.exists()

    def checkpoint(self, number: int) -> Path:
        """Of a trial that is not over."""
        return self.folder / "trials" / f"{number:03}"


@dataclass
class Trial:
    """One configuration of a sweep, and what it gave so far."""

    number: int
    """From 1."""
    values: dict[str, Value]
    """Of the fields that are searched."""
    config: TrainConfig
    records: list[dict[str, Any]] = field(default_factory=list)
    """Of its epochs."""
    state: State = "running"
    why: str | None = None

    @property
    def kept(self) -> Mapping[str, float] | None:
        """The scores of the epoch whose weights would be kept."""
        return kept_scores(self.config, self.records) if self.records else None

    @property
    def seconds(self) -> float:
        return float(sum(record["scores"]["epoch_seconds"] for record in self.records))

    def add(self, record: Mapping[str, Any]) -> None:
        """What the journal says of it after its start."""
        if "epoch" in record:
            self.records.append(dict(record))
        else:
            self.state, self.why = record["state"], record["why"]


def kept_scores(config: TrainConfig, records: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
    """Of these epochs' records, the scores of the one whose weights would be kept."""
    scores: list[Mapping[str, float]] = [record["scores"] for record in records]
    return scores[-1] if config.keep == "last" else min(scores, key=lambda each: float(each["val_loss"]))


def key(number: int, what: str) -> str:
    """A trial's record in the journal of its sweep: its `start`, `epoch/3`, `end`."""
    return f"trial/{number:03}/{what}"


def split_key(text: str) -> tuple[int, str] | None:
    """(trial, what) of such a record; None for one of the sweep's own."""
    head, _, rest = text.partition("/")
    number, _, what = rest.partition("/")
    return (int(number), what) if head == "trial" else None


def trials_of(plan: Plan, records: Iterable[Mapping[str, Any]]) -> dict[int, Trial]:
    """The trials that a journal tells of, by number."""
    trials: dict[int, Trial] = {}
    for record in records:
        if place := split_key(record["key"]):
            number, what = place
            if what == "start":
                trials[number] = Trial(number, record["values"], placed(plan.base, record["values"]))
            else:
                trials[number].add(record)
    return trials


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """Those that trained to their end, the best first. Of two with the same score, the one that is surer of it."""
    done = [(trial, kept) for trial in trials if trial.state == "completed" and (kept := trial.kept)]
    return [trial for trial, kept in sorted(done, key=lambda pair: (-pair[1][SCORE], pair[1]["val_loss"]))]


def create_sweep(root: Path, plan: Plan) -> Sweep:
    """A new sweep in the folder of sweeps `root`, its plan written."""
    moment = datetime.fromisoformat(plan.created)
    name = f"{PREFIX}{moment:%Y%m%d-%H%M%S}-{moment.microsecond // 1000:03}{secrets.token_hex(1)}"
    sweep = Sweep(make_folder(root) / name)
    make_folder(sweep.checkpoint(0).parent)
    write_whole(sweep.folder / "sweep.json", adapter(Plan).dump_json(plan, indent=1))
    return sweep


def list_sweeps(root: Path) -> list[Sweep]:
    """All sweeps in the folder `root`, oldest first."""
    return sorted((Sweep(path.parent) for path in root.glob("*/sweep.json")), key=lambda sweep: sweep.id)


def list_tracked(home: Path) -> list[Run | Sweep]:
    """All runs and sweeps of a workspace: whatever may have something to send."""
    return [*list_runs(home / "runs"), *list_sweeps(home / "sweeps")]


def find_sweep(root: Path, reference: str) -> Sweep:
    """The sweep with this id (or an unambiguous beginning of it), or the `latest`. Raises UserError."""
    sweeps = list_sweeps(root)
    there = ", ".join(sweep.id for sweep in sweeps[-5:])
    if reference == LATEST and sweeps:
        return sweeps[-1]
    found = [
        sweep
        for sweep in sweeps
        if reference and sweep.id.removeprefix(PREFIX).startswith(reference.removeprefix(PREFIX))
    ]
    exact = [sweep for sweep in found if sweep.id == reference]
    if len(exact or found) == 1:
        return (exact or found)[0]
    problem = (
        f"could be any of {', '.join(sweep.id for sweep in found)}" if found else f"there is no such sweep in {root}"
    )
    raise UserError(
        f"sweep {reference!r}", f"{problem}; {f'the last are {there}' if there else 'make one: fmnist sweep'}"
    )


def start_of_sweep(sweep: Sweep) -> dict[str, Any]:
    """The journal's first record: what the sweep is, in the form of a run's start."""
    plan = sweep.about
    space = {f"space.{name}": str(domain) for name, domain in plan.space.items()}
    return {
        "key": "start",
        "time": datetime.fromisoformat(plan.created).timestamp(),
        "run_id": sweep.id,
        "params": {"trials": plan.trials, "search_seed": plan.seed, **space, **_unsearched(sweep)},
        "data": plan.data,
        "name": plan.name,
        "note": None,
        "tags": {},
        "facts": plan.versions,
    }


def _unsearched(sweep: Sweep) -> dict[str, Any]:
    base = sweep.about.base.model_dump()
    return {name: value for name, value in base.items() if name not in sweep.about.space}


def shared(sweep: Sweep, number: int, values: dict[str, Any]) -> dict[str, Any]:
    """What makes a trial's start that of a run."""
    plan = sweep.about
    return {
        "run_id": f"{sweep.id}-{number:03}",
        "params": plan.base.model_dump() | values,
        "data": plan.data,
        "name": f"trial {number}",
        "note": None,
        "tags": {"fmnist.sweep": sweep.id},
    }


def end_of_sweep(trials: dict[int, Trial]) -> dict[str, Any]:
    """The journal's last record."""
    best = ranked(trials.values())[0]
    assert best.kept
    scores = {f"best_{SCORE}": best.kept[SCORE], "best_trial": best.number, "trials_over": len(trials)}
    return {"key": "end", "time": time.time(), "trials": len(trials), "best": best.number, "scores": scores}
