"""Ray on two nodes of one core each, in containers: a training, a sweep and the service on both, and what befalls them.

Who may knock where, and what is kept in the bucket: `test_cluster_containers.py`, `test_cluster_bucket.py`.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fmnist.sweep import list_sweeps
from fmnist.tracking.journal import Journal

from .platforms import WAIT

RAY = ("ray-head", "ray-worker")

pytestmark = pytest.mark.filterwarnings("ignore")

LOAD = """
import json, requests, sys, time
host = sys.argv[1]  # each node's replica answers what that node is asked
answers, failures, end = {}, [], None
with requests.Session() as session:
    until = time.monotonic() + 120
    while time.monotonic() < until:  # the nodes' proxies do not start at the same time
        try:
            if session.post(f"http://{host}:8000/predict", data=bytes(784), timeout=60).ok:
                break
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    while end is None or time.monotonic() < end:
        reply = session.post(f"http://{host}:8000/predict", data=bytes(784), timeout=60)
        if reply.status_code != 200:
            failures.append(reply.text)
            continue
        last = reply.json()["model"]["version"]
        if not answers:
            print("it answers", flush=True)
        answers[last] = answers.get(last, 0) + 1
        if last == "2" and end is None:
            end = time.monotonic() + 5
print(json.dumps({"answers": answers, "failures": failures, "last": last}))
"""
END = "import psutil; [one.terminate() for one in psutil.process_iter() if {!r} in one.cmdline()[1:3]]"
"""Ends the command that has this verb."""


@pytest.fixture
def served(cluster: Any) -> Iterator[None]:
    """Two versions or more are registered, and the first is served by a replica on each node."""
    while (
        len(cluster.mlflow_get("model-versions/search", filter="name = 'fashion-mnist'").get("model_versions", [])) < 2
    ):
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
    client = ("docker", "compose", "exec", "--no-TTY", "notebook", "python", "-c", LOAD)
    loads = [cluster.begin(*client, node) for node in RAY]
    for load in loads:
        assert load.stdout is not None and load.stdout.readline() == "it answers\n"
    cluster.inside("fmnist", "promote", "2")
    for load in loads:
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


EPOCHS = 20
WHOLE = list(range(1, EPOCHS + 1))


def training(platform: Any) -> "subprocess.Popen[str]":
    """One of two workers, on both nodes; it has done its second epoch."""
    given = " ".join(platform.train_few(EPOCHS)[2:])
    process: subprocess.Popen[str] = platform.begin("make", "--silent", "platform-train", "WORKERS=2", f"ARGS={given}")
    assert process.stderr is not None
    told = ""
    while f" 2/{EPOCHS} " not in told:
        line = process.stderr.readline()
        assert line, told
        told += line
    return process


def check_whole(platform: Any, process: "subprocess.Popen[str]") -> str:
    """Every epoch is there once. Gives what was told meanwhile."""
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert result["epochs"] == EPOCHS
    for score in ("val_loss", "train_loss"):
        platform.wait(lambda: platform.steps(result["run_id"], score) == (WHOLE, WHOLE), f"{score}, each epoch once")  # noqa: B023
    return str(err)


def test_a_node_that_dies_in_the_middle_of_a_training_costs_no_epoch(cluster: Any) -> None:
    process = training(cluster)
    assert all("ray::" in cluster.compose("top", node).stdout for node in RAY)
    cluster.inside("sh", "-c", "kill -9 -1", service="ray-worker", check=False)
    assert "a worker was lost" in check_whole(cluster, process)
    assert cluster.inspect("ray-worker")["RestartCount"] >= 1


def test_a_network_cut_for_20_seconds_costs_no_epoch(cluster: Any) -> None:
    process = training(cluster)
    inside = ["nsenter", "--net", "--target", str(cluster.inspect("ray-worker")["State"]["Pid"]), "ip", "link", "set"]
    cluster.run(*inside, "eth0", "down")
    time.sleep(20)
    assert process.poll() is None
    cluster.run(*inside, "eth0", "up")
    check_whole(cluster, process)
