"""Which network workers talk on: the one on which Ray's nodes know each other, where a machine has several.

Gloo takes the one that the machine's own name stands for, which may lead to none of the others.
"""

import os
import time

import psutil
import ray
from ray.exceptions import RayActorError
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError

from fmnist.errors import last_words

SOON = 120
"""Seconds. What fails later has waited in vain for an answer, and would again."""


class OnRaysNetwork(TorchConfig):  # type: ignore[misc]
    """Ray Train's processes of PyTorch, as ever, on that network."""

    @property
    def backend_cls(self) -> type["_Backend"]:
        return _Backend


class _Backend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: object, backend_config: TorchConfig) -> None:
        worker_group.execute(choose_interface)  # type: ignore[attr-defined]
        started = time.monotonic()
        try:
            super().on_start(worker_group, backend_config)
        except RayActorError:
            raise
        except Exception as error:  # maybe of those that waited for one that was lost: for the loss Ray begins again
            if time.monotonic() - started > SOON:
                raise
            told = f"the workers did not find each other ({last_words(error)})"
            raise WorkerGroupStartupFailedError(told) from error


def choose_interface() -> None:
    """Name it to gloo and NCCL, unless somebody has; in a worker, before its process group is made."""
    address = ray.util.get_node_ip_address()
    for name, found in psutil.net_if_addrs().items():
        if address in (each.address for each in found):
            for library in ("GLOO", "NCCL"):
                os.environ.setdefault(f"{library}_SOCKET_IFNAME", name)
