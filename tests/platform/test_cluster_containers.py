"""The profile `cluster`: Ray's head and a worker in containers of their own, and what strangers meet there."""

import json
import socket
from typing import Any

import psutil
import pytest

from .platforms import WAIT
from .test_safety import check_confined, check_nothing_told
from .test_two_nodes import RAY

GCS, CLIENT, DASHBOARD, AGENT = 6379, 10001, 8265, 52365
JOIN = "import ray; ray.init({!r}, log_to_driver=False); print(len(ray.nodes()), ray.cluster_resources()['CPU'])"


def addresses(platform: Any, service: str) -> list[str]:
    return [str(of["IPAddress"]) for of in platform.inspect(service)["NetworkSettings"]["Networks"].values()]


def test_the_notebook_is_a_node_that_computes_nothing(cluster: Any) -> None:
    port = cluster.environment["RAY_DASHBOARD_PORT"]
    assert f"Ray          http://localhost:{port} (its token is in secrets/ray_token)" in cluster.told
    for address in ("ray-head:6379", "ray://ray-head:10001"):
        joined = ["python", "-c", JOIN.format(address)]
        cluster.wait(lambda: cluster.inside(*joined, check=False).stdout == "3 2.0\n", "three nodes with two cores")  # noqa: B023


def test_only_the_dashboard_is_published_and_only_on_loopback(cluster: Any) -> None:
    head, worker = (cluster.inspect(service)["NetworkSettings"]["Ports"] for service in RAY)
    port = cluster.environment["RAY_DASHBOARD_PORT"]
    assert [bound for bound in head.values() if bound] == [[{"HostIp": "127.0.0.1", "HostPort": port}]]
    assert not any(worker.values())


KNOCK = """for place; do
    timeout 2 bash -c "exec 3<>/dev/tcp/$place" 2>&- && echo "$place" &
done
wait
"""
"""Says which of the places HOST/PORT it reaches, knocking at all at once."""


@pytest.mark.parametrize("service", ["tensorboard", "api", "postgres"])
def test_the_others_do_not_reach_it(cluster: Any, service: str) -> None:
    hosts = [host for node in RAY for host in (node, *addresses(cluster, node))]
    places = [f"{host}/{port}" for host in hosts for port in (GCS, DASHBOARD, AGENT, CLIENT)]
    assert cluster.inside("bash", "-c", KNOCK, "bash", *places, service=service, check=False).stdout == ""
    reached = cluster.inside("bash", "-c", KNOCK, "bash", *places, check=False).stdout  # from where it may
    assert f"ray-head/{GCS}\n" in reached and f"ray-head/{CLIENT}\n" in reached


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"X-Ray-Authorization": "Bearer " + "0" * 64}]
)
def test_without_the_token_the_dashboard_tells_nothing_and_takes_no_job(cluster: Any, headers: dict[str, str]) -> None:
    job = {"entrypoint": "id"}
    paths = ("api/jobs/", "nodes?view=summary", "api/v0/logs", "api/cluster_status", "api/serve/applications/")
    asked = [cluster.http.get(f"{cluster.dashboard}/{path}", headers=headers, timeout=60) for path in paths]
    asked += [cluster.http.post(f"{cluster.dashboard}/api/jobs/", json=job, headers=headers, timeout=60)]
    assert {answer.status_code for answer in asked} <= {401, 403}
    right = {"Authorization": f"Bearer {cluster.ray_token}"}
    listed = cluster.http.get(f"{cluster.dashboard}/api/jobs/", headers=right, timeout=60)
    assert listed.status_code == 200
    assert [job for job in listed.json() if job["type"] == "SUBMISSION"] == []


def test_without_the_token_nobody_joins(cluster: Any) -> None:
    quick = [f"RAY_CLIENT_{which}_CONNECTION_TIMEOUT_S=3" for which in ("INITIAL", "MAX")]
    tries = []
    for given in ("RAY_AUTH_TOKEN_PATH=/etc/hostname", "RAY_AUTH_MODE=disabled"):
        settings = [given, *quick, "RAY_gcs_server_request_timeout_seconds=5"]
        options = [option for setting in settings for option in ("--env", setting)]
        told = {"ray-head:6379": "uthenticat", "ray://ray-head:10001": "ray client connection timeout"}
        for address, complaint in told.items():
            join = ["exec", "--no-TTY", *options, "notebook", "timeout", "60", "python", "-c", JOIN.format(address)]
            tries.append((cluster.begin("docker", "compose", *join), complaint))
    for process, complaint in tries:
        out, err = process.communicate(timeout=WAIT)
        assert process.returncode != 0 and out == ""
        assert complaint in err


@pytest.mark.parametrize("node", RAY)
def test_without_the_token_a_nodes_agent_does_nothing(cluster: Any, node: str) -> None:
    ask = f"import urllib.request; urllib.request.urlopen('http://{node}:{AGENT}/api/job_agent/jobs/', b'{{}}', 5)"
    assert "401" in cluster.inside("python", "-c", ask, check=False).stderr


@pytest.mark.parametrize("service", RAY)
def test_a_node_can_do_no_more_than_it_must(cluster: Any, service: str) -> None:
    check_confined(cluster, service)


def test_no_secret_is_told(cluster: Any) -> None:
    check_nothing_told(cluster, (*RAY, "notebook"))


def test_this_machines_other_addresses_reach_nothing(cluster: Any) -> None:
    port = int(cluster.environment["RAY_DASHBOARD_PORT"])
    for found in psutil.net_if_addrs().values():
        for address in found:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                with socket.socket() as probe:
                    probe.settimeout(2)
                    assert probe.connect_ex((address.address, port)) != 0, address.address


@pytest.mark.last
def test_without_the_profile_it_is_gone_and_the_rest_goes_on(cluster: Any) -> None:
    assert {"ray-head", "ray-worker"} <= {
        line.split()[0] for line in cluster.make("status").stdout.splitlines() if line.strip()
    }
    plain = cluster.environment | {"COMPOSE_PROFILES": "s3"}
    told = cluster.make("start", env=plain).stdout
    assert "Service " in told and "Ray " not in told
    running = [json.loads(line) for line in cluster.compose("ps", "--all", "--format", "json").stdout.splitlines()]
    assert {one["Service"] for one in running} == {"postgres", "mlflow", "s3", "tensorboard", "notebook", "api"}
    told = cluster.complaint("platform-train", "WORKERS=2", COMPOSE_PROFILES="s3")
    assert told == "the cluster: does not run; COMPOSE_PROFILES=cluster in .env, make build, make start"
