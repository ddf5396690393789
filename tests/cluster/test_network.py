import os
from types import SimpleNamespace

import psutil
import pytest
import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError

from fmnist.cluster import network
from fmnist.cluster.network import choose_interface


@pytest.mark.parametrize("library", ["GLOO", "NCCL"])
def test_it_is_told_the_interface_of_rays_address_unless_somebody_has(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    choose_interface()
    assert os.environ[f"{library}_SOCKET_IFNAME"] == "x"
    monkeypatch.delenv(f"{library}_SOCKET_IFNAME")
    choose_interface()
    own = psutil.net_if_addrs()[os.environ[f"{library}_SOCKET_IFNAME"]]
    assert "127.0.0.1" in [each.address for each in own]


@pytest.mark.parametrize("error", [RuntimeError("Connection closed by peer"), RayActorError(error_msg="it died")])
def test_those_that_waited_for_one_that_was_lost_are_begun_again_as_it_is(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Ray Train begins anew for these two errors."""

    def fails(self: object, group: object, config: object) -> None:
        raise error

    monkeypatch.setattr(network._TorchBackend, "on_start", fails)
    group = SimpleNamespace(execute=lambda call: None)
    with pytest.raises((RayActorError, WorkerGroupStartupFailedError), match=str(error)) as caught:
        network._Backend().on_start(group, network.OnRaysNetwork())
    assert (caught.value is error) is isinstance(error, RayActorError)
    monkeypatch.setattr(network, "SOON", -1)
    with pytest.raises(type(error)) as caught:  # it took long
        network._Backend().on_start(group, network.OnRaysNetwork())
    assert caught.value is error
