"""A training by several workers on Ray: the driver is where the run is, and does all but the epochs' steps.

So its folder, checkpoint, journal, signals and display are those of any training, wherever the workers are.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from fmnist.checkpoint import pack, unpack
from fmnist.cluster.connection import Cluster, connected
from fmnist.cluster.coordinator import Coordinator, News
from fmnist.data.dataset import Split
from fmnist.engine.plain import Engine, EpochResult
from fmnist.errors import Failure, UserError, last_words
from fmnist.recipe import TrainConfig

ANSWER = 60
"""Seconds for the coordinator to answer; it is asked for nothing that takes long."""
LONG = 120
"""Seconds after which workers that have not begun are worth a word; Ray's imports alone may take one."""


@dataclass(frozen=True)
class Team:
    """So many workers of a cluster."""

    cluster: Cluster
    size: int
    notice: Callable[[str], None]

    def make_engine(self, config: TrainConfig, classes: int, device: str = "auto") -> Engine:
        """An engine whose epochs the workers do. Raises UserError for what is not there."""
        engine = ClusterEngine(config, classes, device, self)
        if engine.device.type == "cuda" and self.size > self.cluster.gpus:
            raise UserError(
                f"--workers {self.size}",
                f"is more than the {self.cluster.gpus} GPUs there; give at most that, or --device cpu",
            )
        return engine


@contextmanager
def hired(size: int, address: str | None, notice: Callable[[str], None]) -> Iterator[Team]:
    """Place for `size` workers, for the time of the block. Raises UserError or Failure."""
    with connected(address, size, notice=notice) as cluster:
        yield Team(cluster, size, notice)


class ClusterEngine(Engine):
    """Evaluates here, and has the epochs done by its team."""

    def __init__(self, config: TrainConfig, classes: int, device: str, team: Team) -> None:
        super().__init__(config, classes, device)
        self.classes, self.team, self.workers = classes, team, team.size
        self._coordinator: Any = None
        self._begun = 0

    @contextmanager
    def at_work(self, data: Split) -> Iterator[None]:
        """The workers are there, with the images. Raises Failure."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from fmnist.cluster.workers import Plan, run_workers

        started = time.perf_counter()
        self.team.notice(f"starting {self.team.size} workers")
        precision = "bf16" if self.precision is torch.bfloat16 else "fp32"
        config = self.config.model_copy(update={"precision": precision})  # as this machine has it, on all
        asked = self.config.precision == "bf16"
        here = NodeAffinitySchedulingStrategy(self.team.cluster.node, soft=False)
        try:
            images, labels = ray.put(data.images), ray.put(data.labels)
            plan = Plan(config, self.classes, self.device.type, self.team.size, images, labels, asked)
            self._coordinator = ray.remote(num_cpus=0, scheduling_strategy=here)(Coordinator).remote()
        except Exception as error:  # of Ray's client: what the cluster's head has raised, as it is
            told = f"cannot make what workers need ({last_words(error)}); see that each node has this version of fmnist"
            raise Failure(self._place, told) from error
        try:
            self._coordinator.hire.remote(partial(run_workers, plan))
            self._wait(started)
            self.waited = time.perf_counter() - started
            yield
        finally:
            with suppress(Exception):  # the cluster may be what failed
                ray.kill(self._coordinator)  # and with it all that it has begun

    def _wait(self, started: float) -> None:
        """Until all workers have begun."""
        said = False
        while not self._news().begun:
            if not said and time.perf_counter() - started > LONG:
                said = True
                self.team.notice(
                    f"no {self.team.size} workers yet after {LONG} s: they need as many free processors, "
                    "and all TCP ports between them"
                )

    @property
    def _place(self) -> str:
        return f"Ray at {self.team.cluster.address}" if self.team.cluster.address else "Ray"

    def train_epoch(self, data: Split, epoch: int, on_step: Callable[[int], None] = lambda images: None) -> EpochResult:
        """Have every image trained on once; `on_step` is told now and then how many are done."""
        self._ask("want", epoch, pack(self.state()))
        while not (delivery := (news := self._news()).delivery):
            on_step(news.images)
        on_step(delivery.images)
        self.load_state(unpack(delivery.state))
        self.rate = delivery.rate
        return EpochResult(delivery.loss, delivery.accuracy, delivery.images, delivery.seconds)

    def _news(self) -> News:
        news: News = self._ask("news")
        if news.failure:
            remedy = "" if "; " in news.failure else "; see that the cluster is well"
            raise Failure(f"the {self.team.size} workers", f"{news.failure}{remedy}")
        if news.begun > self._begun > 0:
            self.team.notice(f"a worker was lost ({news.lost}) and is replaced; its epoch begins again")
        self._begun = news.begun
        return news

    def _ask(self, method: str, *arguments: Any) -> Any:
        import ray

        try:
            return ray.get(getattr(self._coordinator, method).remote(*arguments), timeout=ANSWER)
        except Exception as error:  # of Ray's client, of any kind
            raise Failure(self._place, f"is gone ({last_words(error)}); see that it runs, and has memory") from error
