"""Where a sweep's trials, on whichever node, leave what they have to say, and find what they go on from.

A trial may run where the sweep's folder is not, and the sweep may be watched from a machine that no node can reach.
So both talk to an actor: trials hand in records and checkpoints, and whoever holds the folder fetches and commits them.
"""

import shutil
import tempfile
from typing import Any, NamedTuple

from fmnist.cluster.connection import session_folder
from fmnist.cluster.trial import Record
from fmnist.errors import one_line
from fmnist.sweep import split_key


class Letter(NamedTuple):
    """A trial's record, and the checkpoint that commits it, if there is one."""

    number: int
    record: Record
    state: bytes | None


class Desk:
    """Holds, of each trial that is not over, its last checkpoint: a worker that dies is replaced by one that asks."""

    def __init__(self, kept: dict[int, bytes]) -> None:
        self._kept, self._letters = dict(kept), list[Letter]()

    def send(self, number: int, record: Record, state: bytes | None = None) -> None:
        if state is not None:
            self._kept[number] = state
        place = split_key(record["key"])
        if place and place[1] == "end":
            self._kept.pop(number, None)
        self._letters.append(Letter(number, record, state))

    def kept(self, number: int) -> bytes | None:
        return self._kept.get(number)

    def make_folder(self) -> str:
        """On its machine, which is where Tune runs and wants one, among Ray's own files."""
        self._folder = tempfile.mkdtemp(dir=session_folder())
        return self._folder

    def clean(self) -> None:
        """Ray removes nothing by itself, and a cluster may be there for months."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def collect(self) -> list[Letter]:
        """All letters since it was asked last."""
        letters, self._letters = self._letters, []
        return letters


class RemotePost:
    """A trial's way to the desk: what it hands in is there when the call returns.

    Raises ConnectionError where it is not to be reached, which is no fault of the trial's.
    """

    def __init__(self, desk: Any) -> None:
        self._desk = desk

    def send(self, number: int, record: Record, state: bytes | None = None) -> None:
        self._answer(self._desk.send.remote(number, record, state))

    def kept(self, number: int) -> bytes | None:
        state: bytes | None = self._answer(self._desk.kept.remote(number))
        return state

    def _answer(self, asked: Any) -> Any:
        import ray

        try:
            return ray.get(asked)
        except ray.exceptions.RayError as error:
            raise ConnectionError(one_line(error)[:300]) from error


def open_desk(node: str, kept: dict[int, bytes]) -> Any:
    """An actor on the node that the sweep talks to, which takes no processor."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(Desk).options(num_cpus=0, scheduling_strategy=here).remote(kept)
