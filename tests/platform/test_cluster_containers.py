"""The profile `cluster`: Ray's head and a worker in containers of their own, and what strangers meet there."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from fmnist.sweep import list_sweeps
from fmnist.tracking.journal import Journal

from .conftest import WAIT
from .test_safety import check_confined, check_nothing_told

RAY = ("ray-head", "ray-worker")
GCS, CLIENT, DASHBOARD, AGENT = 6379, 10001, 8265, 52365
JOIN = "import ray; ray.init({!r}, log_to_driver=False); print(len(ray.nodes()), ray.cluster_resources()['CPU'])"


LOAD = """
import json, requests, time
answers, failures, end = {}, [], None
with requests.Session() as session:
    while end is None or time.monotonic() < end:
        reply = session.post("http://ray-head:8000/predict", data=bytes(784), timeout=60)
        if reply.status_code != 200:
            failures.append(reply.text)
            continue
        last = reply.json()["model"]["version"]
        if not answers:
            print("it answers", flush=True)
        answers[last] = answers.get(last, 0) + 1
        if last == "2" and end is None:
            end = time.monotonic() + 5  # until both replicas have it
print(json.dumps({"answers": answers, "failures": failures, "last": last}))
"""
END = "import psutil; [one.terminate() for one in psutil.process_iter() if {!r} in one.cmdline()[1:3]]"
"""Ends the command that has this verb."""


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


@pytest.fixture
def served(cluster: Any) -> Iterator[None]:
    """Two versions are registered, and the first is served by a replica on each node."""
    for _ in range(2):
        cluster.inside(*cluster.train_few(1))
    serve = ["exec", "--detach", "notebook", "fmnist", "serve", "--cluster", "--replicas", "2", "--host", "0.0.0.0"]
    cluster.compose(*serve)
    ping = ["timeout", "5", "healthcheck", "8000", "/ping", "ray-head", "200"]
    try:
        cluster.wait(lambda: cluster.inside(*ping, service="ray-head", check=False).returncode == 0, "the service")
        cluster.wait(
            lambda: all("ServeReplica" in cluster.compose("top", node).stdout for node in RAY), "both replicas"
        )
        yield
    finally:  # the next test needs the processors
        cluster.inside("python", "-c", END.format("serve"))
        cluster.wait(lambda: "ServeReplica" not in cluster.compose("top", "ray-worker").stdout, "the service to end")


@pytest.mark.usefixtures("served")
def test_both_nodes_serve_and_no_request_fails_while_the_champion_changes(cluster: Any) -> None:
    with cluster.begin("docker", "compose", "exec", "--no-TTY", "notebook", "python", "-c", LOAD) as load:
        assert load.stdout is not None and load.stdout.readline() == "it answers\n"
        cluster.inside("fmnist", "promote", "2")
        out, err = load.communicate(timeout=120)
    told = json.loads(out or err)
    assert told["failures"] == [] and told["answers"].keys() == {"1", "2"} and told["last"] == "2"


def test_a_sweeps_trials_run_on_both_nodes(cluster: Any) -> None:
    budget = ["--trials", "8", "--epochs", "2", "--concurrent", "2", "--space", "batch_size=64"]
    told = json.loads(cluster.inside("fmnist", "sweep", *budget, "--data", cluster.few_images(), "--json").stdout)
    assert [row["trial"] for row in told["trials"]] == list(range(1, 9))
    assert {row["state"] for row in told["trials"]} <= {"completed", "stopped"}
    (sweep,) = list_sweeps(cluster.folder / "var" / "sweeps")  # outside the container, where it is kept
    assert sweep.id == told["sweep_id"]
    begun = [record for record in Journal(sweep.journal).read() if record["key"].endswith("/start")]
    hosts = {cluster.inspect(service)["Config"]["Hostname"] for service in RAY}
    assert {record["facts"]["host"] for record in begun if "facts" in record} == hosts


EPOCHS = 12
WHOLE = list(range(1, EPOCHS + 1))


def training(platform: Any) -> "subprocess.Popen[str]":
    """One of two workers, on both nodes; it has done its second epoch."""
    train = ("exec", "--no-TTY", "notebook", *platform.train_few(EPOCHS), "--workers", "2")
    process: subprocess.Popen[str] = platform.begin("docker", "compose", *train)
    assert process.stderr is not None
    told = ""
    while f" 2/{EPOCHS} " not in told:
        line = process.stderr.readline()
        assert line, told
        told += line
    return process


def check_whole(platform: Any, process: "subprocess.Popen[str]") -> None:
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert result["epochs"] == EPOCHS
    for score in ("val_loss", "train_loss"):
        assert platform.steps(result["run_id"], score) == (WHOLE, WHOLE)


def test_a_node_that_dies_in_the_middle_of_a_training_costs_no_epoch(cluster: Any) -> None:
    process = training(cluster)
    assert all("ray::" in cluster.compose("top", node).stdout for node in RAY)
    cluster.inside("sh", "-c", "kill -9 -1", service="ray-worker", check=False)
    check_whole(cluster, process)
    assert cluster.inspect("ray-worker")["RestartCount"] >= 1


def test_a_network_cut_for_20_seconds_costs_no_epoch(cluster: Any) -> None:
    process = training(cluster)
    inside = ["nsenter", "--net", "--target", str(cluster.inspect("ray-worker")["State"]["Pid"]), "ip", "link", "set"]
    cluster.run(*inside, "eth0", "down")
    time.sleep(20)
    cluster.run(*inside, "eth0", "up")
    check_whole(cluster, process)


def test_this_machines_other_addresses_reach_nothing(cluster: Any) -> None:
    port = int(cluster.environment["RAY_DASHBOARD_PORT"])
    for found in psutil.net_if_addrs().values():
        for address in found:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                with socket.socket() as probe:
                    probe.settimeout(2)
                    assert probe.connect_ex((address.address, port)) != 0, address.address


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
