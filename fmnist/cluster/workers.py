"""The workers of a training: processes of Ray Train's, each with a part of every batch."""

import os
import socket
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed

from fmnist.checkpoint import pack, unpack
from fmnist.cluster.coordinator import Delivery
from fmnist.data.dataset import Split
from fmnist.engine.fast import make_engine
from fmnist.engine.peers import Group
from fmnist.engine.plain import has_bf16
from fmnist.errors import Failure, UserError, one_line
from fmnist.recipe import TrainConfig

PAUSE = 0.2
"""Seconds between two reports of progress."""
MEETING = 180
"""Seconds that workers wait for each other: where a firewall is between them, somebody has to be told."""
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",  # Ray's imports alone take each half a minute, if not busy
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more; what is lost is one epoch
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
SEARCHES = 3
"""How often workers are waited for once more in a training: a node has taken its processors, or one dies as they start.
"""


@dataclass(frozen=True)
class Plan:
    """What workers have to know."""

    config: TrainConfig
    classes: int
    device: str
    size: int
    images: Any
    """[N, 28, 28] and `labels` [N]: references into Ray's store, which has them once a node."""
    labels: Any
    asked: bool = False
    """Whether the precision was asked for, and not chosen by the driver."""


def run_workers(plan: Plan) -> None:
    """Keep `plan.size` workers at work until they are told to end; dead ones are replaced. Called in the coordinator.

    Ray Train begins anew with all of them where one is lost; how often it may, the coordinator says.
    """
    os.environ.update(ENVIRONMENT)
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    from fmnist.cluster.connection import session_folder
    from fmnist.cluster.network import OnRaysNetwork

    each = {"CPU": 1} | ({"GPU": 1} if plan.device == "cuda" else {})
    # Ray Train wants a folder, though it is the driver that saves. It goes with Ray's own: this process is killed.
    with tempfile.TemporaryDirectory(dir=session_folder()) as folder:
        TorchTrainer(
            work,
            train_loop_config={"plan": plan, "coordinator": ray.get_runtime_context().current_actor},
            torch_config=OnRaysNetwork(timeout_s=MEETING),
            scaling_config=ScalingConfig(
                num_workers=plan.size,
                use_gpu=plan.device == "cuda",
                resources_per_worker=each,
                # a machine's cores share its memory's speed; GPUs of one machine talk faster than machines do
                placement_strategy="PACK" if plan.device == "cuda" else "SPREAD",
            ),
            run_config=RunConfig(
                name="fmnist",
                storage_path=folder,
                failure_config=FailureConfig(max_failures=-1, controller_failure_limit=SEARCHES),
                logging_config=LoggingConfig("CRITICAL"),
            ),
        ).fit()


def work(given: dict[str, Any]) -> None:
    """A worker's life."""
    import ray
    from ray.train import get_context

    plan, coordinator = given["plan"], given["coordinator"]
    try:
        _work(plan, coordinator, get_context().get_world_rank())
    except (UserError, Failure) as error:  # another in its place would fail as well
        ray.get(coordinator.fail.remote(str(error)))
    except Exception as error:
        ray.get(coordinator.lose.remote(one_line(f"{type(error).__name__}: {error}")[:300]))
        raise


def check_precision(plan: Plan) -> None:
    """Raise Failure where this machine would only emulate what the driver's machine has chosen."""
    if plan.config.precision == "bf16" and not plan.asked and not has_bf16(torch.device(plan.device)):
        raise Failure(
            f"node {socket.gethostname()}",
            "has no bfloat16, which the driver's machine has; use others, go on without --workers, "
            "or begin with --precision fp32",
        )


def _work(plan: Plan, coordinator: Any, rank: int) -> None:
    import ray

    if rank == 0:
        ray.get(coordinator.arrive.remote())
    torch.set_num_threads(1)
    check_precision(plan)
    engine = make_engine(plan.config, plan.classes, plan.device)
    data = Split(*ray.get([plan.images, plan.labels]))
    engine.peers = group = Group(torch.distributed.group.WORLD, rank, plan.size)
    group.total([1], engine.device)  # all are there
    if rank == 0:
        ray.get(coordinator.begin.remote())
    done, told = 0, time.monotonic()

    def step(images: int) -> None:
        nonlocal told
        if rank == 0 and (now := time.monotonic()) - told >= PAUSE:
            told = now
            coordinator.progress.remote(done + 1, images)

    while task := ray.get(coordinator.next.remote(done)):
        if task.state is not None:
            engine.load_state(unpack(task.state))
        done = task.epoch - 1
        group.align(engine.state())
        result = engine.train_epoch(data, task.epoch, step)
        group.average(engine.model.buffers())
        loss, accuracy = group.total([result.loss, result.accuracy], engine.device)
        done = task.epoch
        if rank == 0:
            state = pack(engine.state())
            delivery = Delivery(loss, accuracy, result.images, result.seconds, engine.rate, state)
            ray.get(coordinator.deliver.remote(task.epoch, delivery))
