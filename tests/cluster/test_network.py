import os

import psutil
import pytest
import ray

from fmnist.cluster.network import choose_interface


def test_gloo_is_told_the_interface_of_rays_address_unless_somebody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "x")
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "x"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    choose_interface()
    own = psutil.net_if_addrs()[os.environ["GLOO_SOCKET_IFNAME"]]
    assert "127.0.0.1" in [each.address for each in own]
