"""The story of a sweep, where its folder is: what trials say is committed, whatever becomes of the cluster."""

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from fmnist.cluster.board import Board
from fmnist.cluster.connection import Cluster, connected, processors
from fmnist.cluster.trial import Images, Record
from fmnist.errors import Failure, Interrupted, causes, last_words
from fmnist.files import unsealed, write_whole
from fmnist.signals import check_signals
from fmnist.sweep import Sweep, Trial, end_of_sweep, key, ranked, shared, trials_of
from fmnist.tracking.journal import Journal
from fmnist.tracking.sweep_report import write_report

Commit = Callable[[Sequence[Record]], None]
POLL = 0.25
TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}
"""What makes Tune as quiet as Ray is; read when it is imported."""
OUT_OF_MEMORY = "OutOfMemoryError"
"""Ray has killed a worker so that its node lives, which Tune does not take for the death of one."""
PATIENCE = 60
"""Seconds in which the cluster answers, however busy it is."""


@contextmanager
def joined(address: str | None, concurrent: int | None, notice: Callable[[str], None]) -> Iterator[Cluster]:
    """Ray at `address`, or one of this machine's own, for so many trials at a time; None: as many as have place now.

    Raises UserError or Failure.
    """
    for name, value in TUNE.items():
        os.environ.setdefault(name, value)
    is_elsewhere = address or os.environ.get("RAY_ADDRESS")
    least = 1 if is_elsewhere else concurrent or processors()
    with connected(address, least, "--concurrent", notice) as cluster:
        if concurrent and concurrent > cluster.cpus:
            notice(f"{cluster.cpus} processors are there, {concurrent} are asked for: others are used when they come")
        yield replace(cluster, cpus=concurrent or cluster.cpus)


def run_sweep(sweep: Sweep, images: Images, commit: Commit, board: Board, cluster: Cluster | None) -> dict[int, Trial]:
    """Search to the end, from wherever the sweep stands, and write its report. Gives its trials.

    `commit` appends records to the journal. `cluster`: as many trials at a time as it has processors; None if no trial
    is left. Raises Interrupted on Ctrl-C and Failure where the cluster fails; what was committed then stands.
    """
    with sweep.lock(), _told_how_to_resume(sweep):
        commit([])
        known = Journal(sweep.journal).read()
        trials = dict(sorted(trials_of(sweep.about, known).items()))
        if cluster:
            _Search(sweep, trials, commit, board, {record["key"] for record in known}).go_on(images, cluster)
        trials = dict(sorted(trials.items()))  # the second may have begun before the first
        if lost := sweep.about.trials - _over(trials):
            raise Failure(sweep.title, f"{lost} of its trials were lost; go on with: {sweep.resume_command}")
        if not ranked(trials.values()):
            reasons = [trial.why for trial in trials.values() if trial.why] or ["all were stopped"]
            raise Failure(sweep.title, f"no trial reached its end ({reasons[0]}); see its journal, and start another")
        write_report(sweep, trials)
        commit([end_of_sweep(trials)])
        return trials


@contextmanager
def _told_how_to_resume(sweep: Sweep) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        over = _over(trials_of(sweep.about, Journal(sweep.journal).read()))
        done = f"{over} of {sweep.about.trials} trials are over and kept"
        raise Interrupted(f"{sweep.title}: interrupted, {done}; go on with: {sweep.resume_command}") from None


def has_trials_left(sweep: Sweep) -> bool:
    """Whether a cluster is needed to end it."""
    return _over(trials_of(sweep.about, Journal(sweep.journal).read())) < sweep.about.trials


def _over(trials: dict[int, Trial]) -> int:
    return sum(trial.state != "running" for trial in trials.values())


class _Search:
    """One stretch of a sweep, from a start of Ray to its end."""

    def __init__(self, sweep: Sweep, trials: dict[int, Trial], commit: Commit, board: Board, known: set[str]) -> None:
        self._sweep, self._trials, self._commit, self._board, self._known = sweep, trials, commit, board, known

    def go_on(self, images: Images, cluster: Cluster) -> None:
        """Until all trials are over. Raises KeyboardInterrupt or Failure."""
        place = f"Ray at {cluster.address}" if cluster.address else "this machine"
        self._board.begin(
            self._sweep.about, self._trials, f"{cluster.cpus} trial{'s' * (cluster.cpus != 1)} at a time on {place}"
        )
        warnings.simplefilter("ignore")  # Optuna's, on what is told it twice
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is told by its trial
        self._run(images, cluster)

    def _run(self, images: Images, cluster: Cluster) -> None:
        import ray

        from fmnist.cluster.desk import open_desk
        from fmnist.cluster.tuning import TRIES, make_tuner

        try:
            desk = open_desk(cluster.node, self._kept())
            place = ray.get(desk.make_folder.remote(), timeout=PATIENCE)
            try:
                for left in reversed(range(TRIES)):
                    what = self._sweep.about, self._trials, images, desk, cluster.cpus, place
                    error = self._fit(make_tuner(*what), desk)
                    if not left or not self._is_worth_another(error):
                        break
            finally:
                with suppress(Exception):
                    ray.get(desk.clean.remote(), timeout=5)
            if error:
                raise error
        except Failure as error:
            raise Failure(self._sweep.title, f"{error}; go on with: {self._sweep.resume_command}") from error
        except Exception as error:
            raise Failure(
                self._sweep.title,
                f"the cluster failed ({last_words(error)}); what is over is kept, "
                f"go on with: {self._sweep.resume_command}",
            ) from error

    def _is_worth_another(self, error: BaseException | None) -> bool:
        """Whether Tune has lost trials by what is no fault of theirs: memory, or a death between two of them."""
        short = any(OUT_OF_MEMORY in f"{type(one).__name__} {one}" for one in causes(error))
        return short if error else _over(self._trials) < self._sweep.about.trials

    def _fit(self, tuner: Any, desk: Any) -> BaseException | None:
        """Have Tune do all trials, and take what they say. Gives what ended it before that."""
        fit = _Fit(tuner)
        fit.start()
        while fit.is_alive():
            check_signals()
            self._take(desk)
            fit.join(POLL)
        self._take(desk)
        return fit.error

    def _kept(self) -> dict[int, bytes]:
        """The checkpoints of trials that were cut off. A damaged one is left out: its trial begins anew."""
        kept = {}
        for number, trial in self._trials.items():
            if trial.state == "running":
                try:
                    raw = self._sweep.checkpoint(number).read_bytes()
                    unsealed(raw, "it")
                    kept[number] = raw
                except (OSError, Failure):
                    continue
        return kept

    def _take(self, desk: Any) -> None:
        import ray

        records, over = [], []
        for number, record, state in ray.get(desk.collect.remote(), timeout=PATIENCE):
            if record["key"] in self._known:  # said once more, by a trial that went on
                continue
            if record["key"] == key(number, "start"):  # what lies there is of another, whose start was never committed
                self._sweep.checkpoint(number).unlink(missing_ok=True)
            if state is not None:
                write_whole(self._sweep.checkpoint(number), state)
            self._known.add(record["key"])
            records.append(self._completed(number, record))
            if self._note(number, record):
                over.append(self._trials[number])
        if records:
            self._commit(records)
        for trial in over:
            self._sweep.checkpoint(trial.number).unlink(missing_ok=True)
            self._board.ended(trial)

    def _completed(self, number: int, record: Record) -> Record:
        """A trial's start with what it shares with all others."""
        return (
            record | shared(self._sweep, number, record["values"]) if record["key"] == key(number, "start") else record
        )

    def _note(self, number: int, record: Record) -> bool:
        """Whether the trial is over by it."""
        if record["key"] == key(number, "start"):
            self._trials |= trials_of(self._sweep.about, [record])
        else:
            self._trials[number].add(record)
        return bool(record["key"] == key(number, "end"))


class _Fit(threading.Thread):
    """Tune at work. In a thread, so that this process commits, draws and hears signals meanwhile."""

    def __init__(self, tuner: Any) -> None:
        super().__init__(name="tune", daemon=True)
        self._tuner = tuner
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._tuner.fit()
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody hears it
            self.error = error
