"""A sweep as its journal tells it: five trials, of which one was stopped early, one diverged, one is not over."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmnist.cluster.trial import end_record
from fmnist.recipe import TrainConfig
from fmnist.space import Choice, Range, Value
from fmnist.sweep import Plan, State, Sweep, create_sweep, end_of_sweep, key, shared, start_of_sweep, trials_of

EPOCHS = 3
PLAN = Plan(
    created="2026-11-26T12:00:00.123456+00:00",
    base=TrainConfig(epochs=EPOCHS),
    space={
        "learning_rate": Range(low=1e-3, high=1e-1, log=True),
        "dropout": Range(low=0, high=1),
        "batch_size": Choice(values=(64, 256)),
    },
    trials=5,
    seed=0,
    data={"name": "custom", "source": "/data", "digest": "d" * 64, "class_names": ["a", "b"]},
    name="a sweep",
    versions={"user": "somebody", "code": "abc", "python": "3.11"},
)


def of_trial(
    sweep: Sweep, number: int, values: dict[str, Value], accuracies: Sequence[float], state: State | None
) -> list[dict[str, Any]]:
    """A trial's records. `state`: None for one that is not over."""
    facts = {"device": "cpu", "host": "a-node", "user": "somebody"}
    moment = 1000.0 * number
    records: list[dict[str, Any]] = [
        {"key": key(number, "start"), "time": moment, "values": values, "facts": facts} | shared(sweep, number, values)
    ]
    for epoch, accuracy in enumerate(accuracies, 1):
        scores = {"val_accuracy": accuracy, "val_loss": 1 - accuracy, "val_f1": accuracy, "epoch_seconds": 2.0}
        records.append({"key": key(number, f"epoch/{epoch}"), "epoch": epoch, "time": moment + epoch, "scores": scores})
    if state:
        why = "its loss is no finite number" if state == "diverged" else None
        records.append(end_record(number, len(accuracies), state, why) | {"time": moment + 9})
    return records


def a_sweep(root: Path) -> tuple[Sweep, list[dict[str, Any]]]:
    """(the sweep, all records that its journal would have)."""
    sweep = create_sweep(root, PLAN)
    fast: dict[str, Value] = {"learning_rate": 0.004, "dropout": 0.2, "batch_size": 256}
    records = [start_of_sweep(sweep), *of_trial(sweep, 1, fast, [0.5, 0.6, 0.9], "completed")]
    records += of_trial(sweep, 2, fast | {"dropout": 0.7}, [0.3], "stopped")
    records += of_trial(sweep, 3, fast | {"learning_rate": 0.01, "batch_size": 64}, [0.5, 0.7, 0.93], "completed")
    records += of_trial(sweep, 4, fast | {"learning_rate": 0.1}, [], "diverged")
    records += of_trial(sweep, 5, fast | {"dropout": 1.0}, [0.4, 0.5], None)
    return sweep, records


def ended(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same, its last trial over too, with the sweep's end."""
    last = end_record(5, 2, "stopped")
    return [*records, last, end_of_sweep(trials_of(PLAN, [*records, last]))]
