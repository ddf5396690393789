"""Which sinks a run has, and the process that feeds them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fmnist.errors import Failure, UserError, one_line
from fmnist.files import make_folder
from fmnist.registry import Registry
from fmnist.sweep import Sweep
from fmnist.tracked import Tracked
from fmnist.tracking.shipper import Sink, SinkFactory


@dataclass(frozen=True)
class Destinations:
    """Where records go."""

    mlflow_uri: str
    """A server's address, or a database's."""
    experiment: str
    model_name: str
    artifacts: Path
    """Where files go if MLflow is a database; a server keeps them itself."""
    logs: Path
    """TensorBoard's folder; a run has a folder of its own in it."""

    @property
    def mlflow_lane(self) -> str:
        """What a run's shipping.json calls this MLflow."""
        return f"mlflow {one_line(self.mlflow_uri)}"

    @property
    def tensorboard_lane(self) -> str:
        return f"tensorboard {self.logs}"

    def sinks(self, run: Tracked) -> dict[str, SinkFactory]:
        """By address: how to open each sink, which imports what it needs."""

        def mlflow() -> Sink:
            from fmnist.tracking.mlflow_sink import MlflowSink
            from fmnist.tracking.sweep_sinks import SweepSink

            try:
                Registry(self.mlflow_uri, self.model_name).probe()
            except (Failure, UserError) as error:  # it may come yet
                raise ConnectionError(str(error)) from error
            places = self.mlflow_uri, self.experiment, self.model_name, self.artifacts
            return SweepSink(run, *places) if isinstance(run, Sweep) else MlflowSink(run.folder, *places)

        def tensorboard() -> Sink:
            from fmnist.tracking.sweep_sinks import SweepEvents
            from fmnist.tracking.tensorboard_sink import TensorboardSink

            if isinstance(run, Sweep):
                return SweepEvents(self.logs / run.id)
            return TensorboardSink(run.folder, self.logs / run.id)

        return {self.mlflow_lane: mlflow, self.tensorboard_lane: tensorboard}


def start_shipper(run: Tracked, home: Path) -> "subprocess.Popen[bytes]":
    """`fmnist sync RUN --follow`, its output in the run's folder.

    It has a session of its own: Ctrl-C is for the training; the shipper sends what was committed, and ends.
    """
    return _start_sync([run.id, "--follow"], home, run.folder / "shipping.log")


def start_catching_up(runs: Sequence[Tracked], home: Path) -> None:
    """`fmnist sync` for earlier runs that are not all sent, beside a training."""
    _start_sync([run.id for run in runs], home, make_folder(home / "runs") / "shipping.log")


def _start_sync(arguments: list[str], home: Path, log_file: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-m", "fmnist", "sync", *arguments]  # -P: no module of the current folder
    environment = os.environ | {"FMNIST_HOME": str(home)}
    if nice := shutil.which("nice"):  # the training goes first
        command = [nice, "-n", "10", *command]
    with _opened(log_file) as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def _opened(log_file: Path) -> IO[bytes]:
    """The log, or nothing in its place: no training fails for a file that somebody else left there."""
    try:
        return log_file.open("ab")
    except PermissionError:
        return Path(os.devnull).open("ab")
