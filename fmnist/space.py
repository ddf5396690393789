"""The space that a sweep searches: which fields of TrainConfig, between what, and why there.

What a field may hold is TrainConfig's own affair: each end and each value is checked against it, so that this table
cannot drift from it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fmnist.errors import UserError, explain, listing
from fmnist.recipe import TrainConfig

Value = bool | int | float | str


@dataclass(frozen=True, kw_only=True)
class Range:
    """All numbers between two ends, both included."""

    low: float
    high: float
    log: bool = False
    """Whether equal ratios, and not equal differences, are as likely."""
    whole: bool = False
    """Whether whole numbers alone are."""
    why: str = ""

    def __contains__(self, value: Any) -> bool:
        return not isinstance(value, str) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A few values."""

    values: tuple[Value, ...]
    why: str = ""

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


Domain = Range | Choice
Space = Mapping[str, Domain]

SPACE: Space = {
    "learning_rate": Range(
        low=1e-3,
        high=2e-2,
        log=True,
        why="what matters most; the recipe's is in the middle, both ends are clearly worse",
    ),
    "weight_decay": Range(
        low=5e-3, high=0.5, log=True, why="acts as a product with the learning rate; a tenth and ten times the recipe's"
    ),
    "dropout": Range(
        low=0, high=0.6, why="a factor on the original's rates, whose whole measure short runs underfit at"
    ),
    "label_smoothing": Range(low=0, high=0.2, why="none, up to twice the recipe's; more hides the labels"),
    "batch_size": Choice(
        values=(128, 256, 512), why="more updates or more images a second; powers of two fill the caches"
    ),
}
"""Searched where nothing else is asked."""

FIXED = {
    "recipe": "is a name; give --recipe",
    "epochs": "is what a trial may cost; give --epochs",
    "seed": "would be a search for luck; give --seed",
    "precision": "is the machine's affair; leave it out",
    "patience": "would stop trials before they can be compared; leave it out",
    "keep": "chooses among a trial's epochs, not among trials; leave it out",
}
"""Fields that are no matter of search, and why."""


def check_space(space: Space) -> None:
    """Raise UserError where TrainConfig would refuse an end or a value."""
    for name, domain in space.items():
        for value in (domain.low, domain.high) if isinstance(domain, Range) else domain.values:
            _typed(name, value)


def narrowed(space: Space, wishes: Iterable[str]) -> dict[str, Domain]:
    """`space` with what the user wishes, each FIELD=LOW..HIGH or FIELD=A,B,C. Raises UserError."""
    result = dict(space)
    for wish in wishes:
        name, _, text = (part.strip() for part in wish.partition("="))
        name = name.replace("-", "_")
        if not name or not text:
            raise UserError(f"--space {wish!r}", "is no FIELD=LOW..HIGH and no FIELD=A,B,C; give one of them")
        if name in FIXED:
            raise UserError(f"--space {name}", FIXED[name])
        if name not in TrainConfig.model_fields:
            free = (field for field in TrainConfig.model_fields if field not in FIXED)
            raise UserError(f"--space {name}", f"there is no such field; choose {listing(free)}")
        result[name] = _range(name, text, space.get(name)) if ".." in text else _choice(name, text)
    return result


def _range(name: str, text: str, known: Domain | None) -> Range:
    low, high = (_typed(name, end.strip()) for end in text.split("..", 1))
    if isinstance(low, bool | str) or isinstance(high, bool | str):
        raise UserError(f"--space {name}={text}", "is no range of numbers; list its values: A,B,C")
    if low >= high:
        raise UserError(f"--space {name}={text}", "its low end is not below its high end; turn it round")
    log = isinstance(known, Range) and known.log and low > 0
    return Range(low=low, high=high, log=log, whole=isinstance(low, int), why="asked for")


def _choice(name: str, text: str) -> Choice:
    values = tuple(_typed(name, part.strip()) for part in text.split(","))
    if len(set(values)) < len(values):
        raise UserError(f"--space {name}={text}", "names a value twice; leave one out")
    return Choice(values=values, why="asked for")


def _typed(name: str, value: Any) -> Value:
    """The value as TrainConfig takes it."""
    try:
        typed: Value = getattr(TrainConfig(**{name: value}), name)
    except ValidationError as error:
        raise explain(error, lambda field: f"--space {field}") from error
    return typed


def point(space: Space, config: TrainConfig) -> dict[str, Value] | None:
    """Where in the space a configuration lies, if it does."""
    values = {name: getattr(config, name) for name in space}
    return values if all(values[name] in domain for name, domain in space.items()) else None


def placed(config: TrainConfig, values: Mapping[str, Value]) -> TrainConfig:
    """The configuration moved to a place of the space."""
    return TrainConfig(**(config.model_dump() | dict(values)))
