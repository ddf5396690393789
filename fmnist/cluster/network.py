"""Which network workers talk on: the one on which Ray's nodes know each other, where a machine has several.

Gloo takes the one that the machine's own name stands for, which may lead to none of the others.
"""

import os

import psutil
import ray
from ray.exceptions import RayActorError
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from fmnist.errors import one_line


class OnRaysNetwork(TorchConfig):  # type: ignore[misc]
    """Ray Train's processes of PyTorch, as ever, on that network."""

    @property
    def backend_cls(self) -> type["_Backend"]:
        return _Backend


class _Backend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: object, backend_config: TorchConfig) -> None:
        worker_group.execute(choose_interface)  # type: ignore[attr-defined]
        try:
            super().on_start(worker_group, backend_config)
        except RayActorError:
            raise
        except Exception as error:  # of those that waited for one that was lost: Ray begins again for the loss alone
            raise RayActorError(error_msg=f"the workers did not find each other ({one_line(error)[-300:]})") from error


def choose_interface() -> None:
    """Name it to gloo and NCCL, unless somebody has; in a worker, before its process group is made."""
    address = ray.util.get_node_ip_address()
    for name, found in psutil.net_if_addrs().items():
        if address in (each.address for each in found):
            for library in ("GLOO", "NCCL"):
                os.environ.setdefault(f"{library}_SOCKET_IFNAME", name)
