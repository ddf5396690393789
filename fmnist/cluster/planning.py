"""What a sweep will do, checked before anything is made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from fmnist.data.dataset import Dataset
from fmnist.errors import UserError
from fmnist.job import about_data, check_request
from fmnist.provenance import provenance
from fmnist.recipe import TrainConfig
from fmnist.signals import importing
from fmnist.space import SPACE, Choice, Domain, Range, check_space, narrowed, placed
from fmnist.sweep import Plan


def new_plan(
    base: TrainConfig, trials: int, wishes: Sequence[str], load_data: Callable[[], Dataset], name: str | None
) -> tuple[Plan, Dataset]:
    """A sweep that begins at `base`, in the usual space but for the user's `wishes`, and its data.

    Raises UserError for what cannot run.
    """
    if trials < 1:
        raise UserError(f"--trials {trials}", "is too small; give at least 1")
    base, space = _settled(base, narrowed(SPACE, wishes))
    check_space(space)
    models = space.get("model")
    for model in models.values if isinstance(models, Choice) else [base.model]:
        check_request(placed(base, {"model": model}), "cpu")
    data = load_data()
    if space.get("batch_size") is SPACE["batch_size"]:
        base, space = _settled(base, _fitting(space, len(data.train)))
    _check_fits(base, space, data)
    plan = Plan(
        created=datetime.now(UTC).isoformat(),
        base=base,
        space=space,
        trials=trials,
        seed=base.seed,
        data=about_data(data),
        name=name,
        versions=provenance(),
    )
    return plan, data


def _settled(base: TrainConfig, space: Mapping[str, Domain]) -> tuple[TrainConfig, dict[str, Domain]]:
    """A field with one value alone is not searched: it is where the search begins."""
    fixed = {
        name: domain.values[0]
        for name, domain in space.items()
        if isinstance(domain, Choice) and len(domain.values) == 1
    }
    left = {name: domain for name, domain in space.items() if name not in fixed}
    if not left:
        raise UserError("--space", "leaves nothing to search; give some field a range")
    return placed(base, fixed), left


def _fitting(space: Mapping[str, Domain], images: int) -> dict[str, Domain]:
    """Without the batch sizes that the data are too few for; nobody asked for them."""
    sizes = space["batch_size"]
    assert isinstance(sizes, Choice)
    fitting = tuple(size for size in sizes.values if int(size) <= images)
    others = {name: domain for name, domain in space.items() if name != "batch_size"}
    return others | {"batch_size": replace(sizes, values=fitting)} if fitting else others


def _check_fits(base: TrainConfig, space: Mapping[str, Domain], data: Dataset) -> None:
    with importing():
        from fmnist.training import check_fits

    match space.get("batch_size"):
        case Range(high=high):
            largest = int(high)
        case Choice(values=values):
            largest = max(int(value) for value in values)
        case None:
            largest = base.batch_size
    check_fits(placed(base, {"batch_size": largest}), data)
