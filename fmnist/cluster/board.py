"""What a terminal sees of a sweep: a row for each trial that is over, and below them, drawn anew, what is going on."""

import time
from collections.abc import Iterable, Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from fmnist.space import Value
from fmnist.sweep import SCORE, Plan, Trial, ranked

WORDS = {"stopped": "stopped early"}
STYLES = {"running": "cyan", "stopped": "dim", "diverged": "yellow", "failed": "red", "lost": "red"}
SHOWN = 5
"""Trials in the list of the best."""


class Board:
    """Follows a sweep. Where nothing can be drawn anew, as in a file, there are the rows alone."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._trials: Mapping[int, Trial] = {}
        self._plan: Plan | None = None
        self._phase = ""
        self._began, self._epochs_before = time.monotonic(), 0
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=4, transient=True)

    def begin(self, plan: Plan, trials: Mapping[int, Trial], where: str) -> None:
        """The search starts, or goes on after `trials`, which grow from now on; `where` is what it runs on."""
        self._plan, self._trials = plan, trials
        self._began, self._epochs_before = time.monotonic(), _epochs(trials.values())
        self.console.print(where, soft_wrap=True)
        for line in header(plan):
            self.console.print(line, style="bold", soft_wrap=True)
        for trial in trials.values():
            if trial.state != "running":
                self._print(trial)
        if self.console.is_terminal:
            self._live.start()

    def ended(self, trial: Trial) -> None:
        """A trial is over."""
        self._print(trial)

    def phase(self, name: str, left: float | None = None) -> None:
        """Something else begins that takes a while, for `left` seconds at most."""
        text = name if left is None else f"{name}, {left:.0f} s at most"
        if not self.console.is_terminal and name != self._phase.partition(",")[0]:
            self.console.print(f"{text} …", style="dim")
        self._phase = text
        if self.console.is_terminal and not self._live.is_started:  # no search was left to do
            self._live.start()

    def end(self) -> None:
        """Nothing more comes."""
        if self._live.is_started:
            self._live.stop()

    def _print(self, trial: Trial) -> None:
        assert self._plan is not None
        leads = trial in ranked(self._trials.values())[:1]
        style = "bold" if leads else STYLES.get(trial.state)
        self.console.print(row(trial, self._plan) + ("  the best so far" if leads else ""), style=style, soft_wrap=True)
        if trial.why:
            self.console.print(f"       {trial.why}", style=STYLES.get(trial.state), soft_wrap=True)

    def _picture(self) -> Group:
        if self._plan is None:
            return Group(Text(self._phase, style="bold", no_wrap=True))
        running = [trial for trial in list(self._trials.values()) if trial.state == "running"]
        rows = [Text(row(trial, self._plan), style=STYLES["running"], no_wrap=True) for trial in running]
        return Group(*rows, Text(self._phase or self._state(self._plan), style="bold", no_wrap=True))

    def _state(self, plan: Plan) -> str:
        trials = list(self._trials.values())
        over = [trial for trial in trials if trial.state != "running"]
        stopped = sum(trial.state == "stopped" for trial in over)
        told = [f"{len(over)} of {plan.trials} trials are over, {stopped} of them stopped early"]
        if best := ranked(trials)[:1]:
            assert best[0].kept
            told.append(f"best: trial {best[0].number}, {best[0].kept[SCORE]:.2%}")
        waiting = plan.trials - len(over)
        cut = sum(len(trial.records) for trial in trials if trial.state == "running")
        left = waiting * plan.base.epochs - cut
        done = _epochs(trials) - self._epochs_before
        pace = (time.monotonic() - self._began) / done if done else None
        about = f", {left * pace / 60:.0f} min" if pace else ""
        told.append(f"at most {left} epochs are left{about}")
        return "; ".join(told)


def _epochs(trials: Iterable[Trial]) -> int:
    return sum(len(trial.records) for trial in trials)


def header(plan: Plan) -> tuple[str, str]:
    """Two lines over the rows."""
    names = [name.partition("_")[::2] for name in plan.space]
    upper = "".join(f"{first if second else '':>11}" for first, second in names)
    lower = "".join(f"{second or first:>11}" for first, second in names)
    return (
        f"{'':5}  {'':13}  {'':6}  {'validation':>10}{upper}",
        f"{'trial':>5}  {'':13}  epochs  {'accuracy':>10}{lower}",
    )


def row(trial: Trial, plan: Plan) -> str:
    """A trial under the header."""
    kept = trial.kept
    accuracy = f"{kept[SCORE]:.2%}" if kept else ""
    position = f"{len(trial.records)}/{plan.base.epochs}"
    values = "".join(f"{show_value(trial.values[name]):>11}" for name in plan.space)
    return f"{trial.number:>5}  {WORDS.get(trial.state, trial.state):13}  {position:>6}  {accuracy:>10}{values}"


def show_value(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def show_outcome(console: Console, plan: Plan, trials: Mapping[int, Trial]) -> None:
    """The best trials, and how they compare with the recipe that the sweep began with."""
    best = ranked(trials.values())
    counts = {state: sum(trial.state == state for trial in trials.values()) for state in ("completed", *STYLES)}
    told = ", ".join(f"{count} {WORDS.get(state, state)}" for state, count in counts.items() if count)
    console.print(f"\n{len(trials)} trials ({told}); the best:", style="bold", soft_wrap=True)
    for line in header(plan):
        console.print(line, style="bold", soft_wrap=True)
    for trial in best[:SHOWN]:
        console.print(row(trial, plan), soft_wrap=True)
    console.print()
    console.print(compared(plan, trials), soft_wrap=True)


def compared(plan: Plan, trials: Mapping[int, Trial]) -> str:
    """A sentence on the recipe's own trial and the best."""
    done, first = ranked(trials.values()), trials.get(1)
    best = done[0]
    assert best.kept
    if first is None or first.config != plan.base or first.kept is None or first.state != "completed":
        return f"the best has {best.kept[SCORE]:.2%} on the validation images"
    if best is first:
        return f"no trial was better than the recipe {plan.base.recipe} itself: {best.kept[SCORE]:.2%}"
    gain = 100 * (best.kept[SCORE] - first.kept[SCORE])
    return (
        f"the recipe {plan.base.recipe} itself has {first.kept[SCORE]:.2%} (trial 1), the best {best.kept[SCORE]:.2%}: "
        f"{gain:+.2f} points; it is the luckiest of {len(done)}: train it with other seeds before you believe it"
    )
