"""A sweep's records -> MLflow and TensorBoard: one parent run with a nested run a trial; a folder of events a trial.

A trial has no model, no test scores and no confusion matrices: it is there to be compared. What it gave is sent as
a run's records are, by the same rules: any of it may be sent again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fmnist.files import sync_tree
from fmnist.sweep import Sweep, split_key, trials_of
from fmnist.tracking.journal import Journal, Record
from fmnist.tracking.mlflow_sink import MlflowSink
from fmnist.tracking.tensorboard_sink import TensorboardSink

PARENT = "mlflow.parentRunId"
STATE = "fmnist.trial"
"""The tag that says how a trial ended."""
ENDS = {"completed": "FINISHED", "stopped": "KILLED", "diverged": "FAILED", "failed": "FAILED", "lost": "FAILED"}
TOLD = {state: state for state in ENDS} | {"stopped": "stopped early"}


class TrialSink(MlflowSink):
    """A trial in MLflow, nested under its sweep."""

    source = "fmnist sweep"
    parent: str
    """The sweep's run there."""

    def _start(self, record: Record) -> None:
        super()._start({**record, "tags": record["tags"] | {PARENT: self.parent}})
        self._client.set_tag(self._run, PARENT, self.parent)  # its first parent may have been deleted

    def _epoch(self, record: Record) -> None:
        self._log_scores(record, record["epoch"])

    def _end(self, record: Record) -> None:
        self._client.set_tag(self._run, STATE, TOLD[record["state"]])
        if record["why"]:
            self._client.set_tag(self._run, "mlflow.note.content", record["why"])
        self._client.set_terminated(self._run, ENDS[record["state"]], int(record["time"] * 1000))
        self._ended = True


class SweepSink(MlflowSink):
    """A sweep in MLflow, and its trials."""

    source = "fmnist sweep"

    def __init__(self, sweep: Sweep, uri: str, *places: Any) -> None:
        super().__init__(sweep.folder, uri, *places)
        self._make_trial: Callable[[], TrialSink] = lambda: TrialSink(sweep.folder, uri, *places)
        self._sweep, self._open = sweep, dict[int, TrialSink]()

    def send(self, record: Record) -> None:
        place = split_key(record["key"])
        if place is None:
            return super().send(record)
        number, what = place
        if number not in self._open:
            self._open[number] = self._begin(number, {**record, "key": what})
        if what != "start":
            self._open[number].send({**record, "key": what})
        if what == "end":
            del self._open[number]
        return None

    def _begin(self, number: int, record: Record) -> TrialSink:
        """The trial's own sink, which wants its start first, though another shipper has sent it."""
        assert self._run is not None
        sink = self._make_trial()
        sink.parent = self._run
        sink.send(record if record["key"] == "start" else start_of(self._sweep, number))
        return sink

    def _end(self, record: Record) -> None:
        self._log_scores(record, record["trials"])
        self._client.log_artifacts(self._run, str(self._sweep.report), "sweep")
        self._settle()
        self._client.set_terminated(self._run, "FINISHED", int(record["time"] * 1000))
        self._ended = True

    def close(self, *, abandoned: bool) -> None:
        if abandoned and self._run and not self._ended:  # whoever sent what is in MLflow may have died too
            there = trials_of(self._sweep.about, Journal(self._sweep.journal).read())
            for number in (n for n, trial in there.items() if trial.state == "running" and n not in self._open):
                self._open[number] = self._begin(number, start_of(self._sweep, number))
        for sink in self._open.values():
            sink.close(abandoned=abandoned)
        super().close(abandoned=abandoned)


class TrialEvents(TensorboardSink):
    """A trial's folder of events: its scores by epoch, and at the end its place in the space beside them."""

    def send(self, record: Record) -> None:
        moment = record["time"]
        if record["key"] == "start":
            self._params, self._started = record["params"], moment
        elif record["key"] == "end":
            self._write_hparams(moment, {**record, "scores": {}})
        else:
            self._write(moment, record["epoch"], [self._scalar(*pair) for pair in record["scores"].items()])
        self._writer.flush()


class SweepEvents:
    """A sweep's folder of events, with a folder a trial."""

    starts_anew = True
    is_empty = False
    there = None
    """Each trial's file has a name of its own."""

    def __init__(self, log_folder: Path) -> None:
        self._logs, self._open = log_folder, dict[int, TrialEvents]()

    def send(self, record: Record) -> None:
        if (place := split_key(record["key"])) is None:
            if record["key"] == "end" and self._logs.exists():
                sync_tree(self._logs)
            return
        number, what = place
        if number not in self._open:
            own = self._logs / f"trial_{number:03}"
            self._open[number] = TrialEvents(own, own)
        self._open[number].send({**record, "key": what})
        if what == "end":
            self._open.pop(number).close(abandoned=False)

    def close(self, *, abandoned: bool) -> None:
        for events in self._open.values():
            events.close(abandoned=abandoned)


def start_of(sweep: Sweep, number: int) -> Record:
    """A trial's first record."""
    wanted = number, "start"
    found = next(record for record in Journal(sweep.journal).read() if split_key(record["key"]) == wanted)
    return {**found, "key": "start"}
