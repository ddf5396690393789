"""What a sweep leaves for people and programs: its best configuration, a table of its trials, a picture of them."""

import csv
import io
import math
from collections.abc import Mapping, Sequence

from fmnist.files import make_folder, write_whole
from fmnist.plots import Scale, as_png, parallel_picture
from fmnist.space import Choice, Domain, Range
from fmnist.sweep import SCORE, Sweep, Trial, ranked

PICTURE, TABLE = "parallel_coordinates.png", "trials.csv"
BELOW = -0.06
"""Where a line ends that would end lower: trials that were stopped early may be far off."""


def write_report(sweep: Sweep, trials: Mapping[int, Trial]) -> None:
    """All of it into the sweep's folder; best.json last, which marks the sweep as over."""
    folder, best = make_folder(sweep.report), ranked(trials.values())[0]
    write_whole(folder / TABLE, trials_table(sweep.about.space, list(trials.values())))
    write_whole(folder / PICTURE, sweep_picture(sweep, list(trials.values())))
    write_whole(sweep.best, best.config.model_dump_json(indent=1) + "\n")


def trials_table(space: Mapping[str, Domain], trials: Sequence[Trial]) -> str:
    """A row a trial, as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    scores = (SCORE, "val_loss", "val_f1")
    writer.writerow(["trial", "state", "epochs", "seconds", *scores, *space])
    for trial in trials:
        kept = trial.kept or {}
        numbers = [f"{kept[name]:.6f}" if name in kept else "" for name in scores]
        values = [trial.values.get(name, "") for name in space]
        writer.writerow([trial.number, trial.state, len(trial.records), f"{trial.seconds:.1f}", *numbers, *values])
    return file.getvalue()


def sweep_picture(sweep: Sweep, trials: Sequence[Trial]) -> bytes:
    """The trials in parallel coordinates, as PNG."""
    done = ranked(trials)
    values = [trial.kept[SCORE] for trial in done if trial.kept]
    low, high = min(values), max(values)
    spread = high - low or 1.0
    heights = [max(BELOW, (trial.kept[SCORE] - low) / spread) if trial.kept else None for trial in trials]
    shades = [height if trial in done else None for trial, height in zip(trials, heights, strict=True)]
    ticks = [(share, f"{low + share * spread:.2%}") for share in ((0, 0.25, 0.5, 0.75, 1) if high > low else (0,))]
    scales = [_scale(name, domain, trials) for name, domain in sweep.about.space.items()]
    best = next((place for place, trial in enumerate(trials) if done and trial is done[0]), None)
    title = f"{sweep.id}: {len(trials)} trials; dashed: {len(trials) - len(done)} that did not reach their end"
    return as_png(parallel_picture([*scales, Scale("validation_accuracy", ticks, heights)], shades, best, title))


def _scale(name: str, domain: Domain, trials: Sequence[Trial]) -> Scale:
    if isinstance(domain, Choice):
        heights = {value: (place + 0.5) / len(domain.values) for place, value in enumerate(domain.values)}
        ticks = [(height, str(value)) for value, height in heights.items()]
        return Scale(name, ticks, [heights[trial.values[name]] for trial in trials])
    ticks = [(share, f"{_value_at(domain, share):.{3 if domain.whole else 2}g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    return Scale(name, ticks, [_height(domain, float(trial.values[name])) for trial in trials])


def _value_at(domain: Range, share: float) -> float:
    if domain.log:
        return math.exp(math.log(domain.low) + share * (math.log(domain.high) - math.log(domain.low)))
    return domain.low + share * (domain.high - domain.low)


def _height(domain: Range, value: float) -> float:
    if domain.log:
        return (math.log(value) - math.log(domain.low)) / (math.log(domain.high) - math.log(domain.low))
    return (value - domain.low) / (domain.high - domain.low)
