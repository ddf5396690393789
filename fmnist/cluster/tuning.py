"""Ray Tune set up for a sweep: Optuna's TPE proposes configurations, ASHA stops those that fall behind.

Tune's own state is not kept: a sweep goes on from its journal, with whatever versions are there then. What is over is
told to the search and to the scheduler as if it had just been seen; what was cut off is proposed again, first.
"""

import math
import os
import warnings
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import ray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch

from fmnist.cluster.desk import RemotePost
from fmnist.cluster.trial import Images, end_record, run_trial, start_record
from fmnist.errors import last_words
from fmnist.recipe import TrainConfig
from fmnist.space import Domain, Range, point
from fmnist.sweep import SCORE, Plan, Trial

REDUCTION = 2
"""Of the trials that reach a rung, the better half goes on."""
TRIES = 3
"""How often a trial is begun whose worker or node dies."""


def first_rung(epochs: int) -> int:
    """The epoch after which a trial may be stopped: a third of the way, when the learning rate has begun to fall.

    Before that a one-cycle schedule tells little: the higher its rate, the worse a trial looks until the rate falls.
    All trials have the same epochs, so that at a rung all are at the same point of their schedules.
    """
    return math.ceil(epochs / 3)


def make_tuner(plan: Plan, trials: Mapping[int, Trial], images: Images, desk: Any, concurrent: int, place: str) -> Any:
    """What is left of the sweep. `place`: a folder for what Tune writes, which nobody needs later."""
    over = [trial for trial in trials.values() if trial.state != "running"]
    search = make_search(plan, trials)
    trainable = tune.with_parameters(train_trial, base=plan.base, images=images, desk=desk)
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={},
        tune_config=tune.TuneConfig(
            search_alg=Limiter(search, concurrent),
            scheduler=make_scheduler(plan.base.epochs, trials.values()),
            num_samples=plan.trials - len(over),
            reuse_actors=True,
            trial_name_creator=lambda trial: str(trial.trial_id),
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=place,
            verbose=0,
            callbacks=[Ends(desk)],
            failure_config=tune.FailureConfig(max_failures=TRIES - 1),
        ),
    )


def train_trial(config: dict[str, Any], base: TrainConfig, images: Images, desk: Any) -> None:
    """What runs in a worker."""
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")  # a trial that ends slowly must not cost the next one
    run_trial(config["trial"], config["values"], base, images, RemotePost(desk), tune.report)


class Scheduler(ASHAScheduler):  # type: ignore[misc]
    """ASHA, which lets a trial pass where that had passed before it was cut off."""

    def __init__(self, passed: Mapping[int, int], **given: Any) -> None:
        """`passed`: how many epochs of a trial are committed, by its number."""
        super().__init__(**given)
        self._passed = passed

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        decision = super().on_trial_result(controller, trial, result)
        return self.CONTINUE if result["epoch"] < self._passed.get(trial.config["trial"], 0) else decision


def make_scheduler(epochs: int, trials: Iterable[Trial]) -> Any:
    """ASHA, which knows how far each trial that is over came."""
    trials = list(trials)
    scheduler = Scheduler(
        {trial.number: len(trial.records) for trial in trials if trial.state == "running"},
        time_attr="epoch",
        metric=SCORE,
        mode="max",
        max_t=epochs,
        grace_period=first_rung(epochs),
        reduction_factor=REDUCTION,
    )
    for trial in (trial for trial in trials if trial.state != "running"):
        known = SimpleNamespace(trial_id=f"over-{trial.number}", config={"trial": trial.number})
        scheduler.on_trial_add(None, known)
        scores = [record["scores"][SCORE] for record in trial.records]
        scores += [0.0] if trial.state in ("diverged", "failed") else []  # as it reported itself
        for epoch, score in enumerate(scores, 1):
            scheduler.on_trial_result(None, known, {"epoch": epoch, SCORE: score})
    return scheduler


def make_search(plan: Plan, trials: Mapping[int, Trial]) -> "NumberedSearch":
    """TPE, which knows what was tried. The recipe itself is the first trial, so that it is known what to beat."""
    cut_off = [trial for trial in trials.values() if trial.state == "running"]
    points: list[dict[str, Any]] = [dict(trial.values) for trial in cut_off]
    new = [number for number in range(1, plan.trials + 1) if number not in trials]
    if 1 not in trials and (own := point(plan.space, plan.base)) is not None:
        points.append(dict(own))
    search = NumberedSearch(plan, [trial.number for trial in cut_off] + new, points, len(trials))
    for trial in trials.values():
        if trial.state not in ("running", "lost"):  # of a lost one nothing is known, nor was the first search told
            scores = [record["scores"][SCORE] for record in trial.records]
            search.add_evaluated_point(
                dict(trial.values),
                trial.kept[SCORE] if trial.kept and trial.state in ("completed", "stopped") else 0.0,
                pruned=trial.state == "stopped",
                intermediate_values=[*scores[:1], *scores],  # Optuna counts from 0, epochs do from 1
            )
    return search


class NumberedSearch(OptunaSearch):  # type: ignore[misc]
    """Gives each configuration the number of its trial, and calls stopped what did not reach its end."""

    def __init__(self, plan: Plan, numbers: list[int], points: list[dict[str, Any]], begun: int) -> None:
        """`begun`: how many trials there are already."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = np.random.SeedSequence((plan.seed, begun)).generate_state(1)[0]  # not what an interrupted one has drawn
        # A quarter at random, then by what those gave; Optuna's own 10 would be most of a small sweep.
        sampler = optuna.samplers.TPESampler(n_startup_trials=max(4, plan.trials // 4), seed=int(seed))
        space = {name: _distribution(domain) for name, domain in plan.space.items()}
        super().__init__(space, SCORE, "max", points, sampler)
        self._numbers = numbers

    def suggest(self, trial_id: str) -> Any:
        if not self._numbers:
            return Searcher.FINISHED
        return {"trial": self._numbers.pop(0), "values": super().suggest(trial_id)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        reached = result and result.get("last")
        super().on_trial_complete(trial_id, result if reached else None, error)


class Limiter(ConcurrencyLimiter):  # type: ignore[misc]
    """Draws but one trial that has no place yet: the others when they have, by what is known then."""

    def suggest(self, trial_id: str) -> Any:
        places = int(ray.cluster_resources().get("CPU", 0))
        return super().suggest(trial_id) if len(self.live_trials) <= places else None


def _distribution(domain: Domain) -> BaseDistribution:
    if not isinstance(domain, Range):
        return CategoricalDistribution(domain.values)
    if domain.whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


class Ends(tune.Callback):  # type: ignore[misc]
    """Tells the desk of ends that a trial cannot tell of itself: it was stopped, or lost too often."""

    def __init__(self, desk: Any) -> None:
        self._post = RemotePost(desk)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell(trial, "stopped", None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if (failed := trial.run_metadata.num_failures) < TRIES:  # Tune counts one death between two trials as two
            return
        number, values = trial.config["trial"], trial.config["values"]
        self._post.send(number, start_record(number, values, {}))  # its worker may not have come so far
        error = last_words(trial.get_pickled_error())
        self._tell(trial, "lost", f"its worker was lost, or its machine failed it, {failed} times ({error})")

    def _tell(self, trial: Any, state: Any, why: str | None) -> None:
        number, epochs = trial.config["trial"], int((trial.last_result or {}).get("epoch", 0))
        self._post.send(number, end_record(number, epochs, state, why))
