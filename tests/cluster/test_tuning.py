"""What the search and the scheduler are told of a sweep that goes on."""

from dataclasses import replace
from pathlib import Path

import pytest

from fmnist.cluster.tuning import Limiter, first_rung, make_scheduler, make_search
from fmnist.sweep import Trial, trials_of

from ..sweeps import PLAN, a_sweep

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray and Optuna warn of their own future


def test_what_is_over_is_known_to_the_search_and_to_the_scheduler(tmp_path: Path) -> None:
    sweep, records = a_sweep(tmp_path)
    trials = trials_of(sweep.about, records)
    search = make_search(PLAN, trials)
    states = [(trial.state.name, trial.params["dropout"]) for trial in search._ot_study.trials if trial.params]
    assert states == [("COMPLETE", 0.2), ("PRUNED", 0.7), ("COMPLETE", 0.2), ("COMPLETE", 0.2)]
    assert search.suggest("x") == {"trial": 5, "values": trials[5].values}  # what was cut off comes first
    assert search.suggest("y") == "FINISHED"
    scheduler = make_scheduler(3, trials.values())
    assert first_rung(3) == 1
    bad, good, again = Named("bad", 6), Named("good", 7), Named("again", 5)
    for trial in (bad, good, again):
        scheduler.on_trial_add(None, trial)
    assert scheduler.on_trial_result(None, again, {"epoch": 1, "val_accuracy": 0.1}) == "CONTINUE"  # it had passed here
    assert scheduler._brackets[0]._rungs[-1][1]["over-4"] == 0.0  # what diverged counts as it did
    assert scheduler.on_trial_result(None, bad, {"epoch": 1, "val_accuracy": 0.1}) == "STOP"
    assert scheduler.on_trial_result(None, good, {"epoch": 1, "val_accuracy": 0.6}) == "CONTINUE"
    assert scheduler.on_trial_result(None, good, {"epoch": 3, "val_accuracy": 0.6}) == "STOP"  # it is done


def test_of_a_trial_that_was_lost_with_its_machine_nobody_is_told(tmp_path: Path) -> None:
    sweep, records = a_sweep(tmp_path)
    lost = replace(trials_of(sweep.about, records)[4], state="lost")
    search, scheduler = make_search(PLAN, {4: lost}), make_scheduler(3, [lost])
    assert [trial for trial in search._ot_study.trials if trial.params] == []
    assert [rung for _, rung in scheduler._brackets[0]._rungs if rung] == []
    assert [search.suggest(name)["trial"] for name in "abcd"] == [1, 2, 3, 5]  # it is over


def test_a_new_sweep_begins_with_the_recipe(tmp_path: Path) -> None:
    search = make_search(PLAN, {})
    own = {name: getattr(PLAN.base, name) for name in PLAN.space}
    assert search.suggest("a") == {"trial": 1, "values": own}
    others = [search.suggest(str(number)) for number in range(2, 6)]
    assert [other["trial"] for other in others] == [2, 3, 4, 5]
    for other in others:
        assert all(other["values"][name] in domain for name, domain in PLAN.space.items())
    assert search.suggest("more") == "FINISHED"
    one = Trial(1, dict(own), PLAN.base)  # interrupted before any was over, it does not draw the same again
    again = make_search(PLAN, {1: one})
    assert again.suggest("a") == {"trial": 1, "values": own}
    assert again.suggest("b")["values"] != others[0]["values"]
    assert [first_rung(epochs) for epochs in (1, 2, 4, 8, 100)] == [1, 1, 2, 3, 34]


def test_what_has_no_place_yet_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"CPU": 2.0}
    monkeypatch.setattr("ray.cluster_resources", lambda: places)
    limiter = Limiter(make_search(PLAN, {}), 4)
    drawn = [limiter.suggest(name) for name in "abcd"]
    assert [one and one["trial"] for one in drawn] == [1, 2, 3, None]  # two have place, one waits
    places["CPU"] = 8.0
    assert limiter.suggest("d")["trial"] == 4
    assert limiter.suggest("e") is None


class Named:
    """All that a scheduler asks of a trial."""

    def __init__(self, trial_id: str, number: int) -> None:
        self.trial_id, self.config = trial_id, {"trial": number}
