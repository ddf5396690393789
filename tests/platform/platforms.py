"""The platform of a copy of the checkout, as the tests use it."""

import json
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).parents[2]
WAIT = 300  # seconds; a busy machine is no fault
COPY = 'git ls-files -z -co --exclude-standard | tar -c --null -T - | tar -x -C "$1"'  # what git has, or would take
SERVICES = ("postgres", "mlflow", "tensorboard", "notebook", "api", "s3", "ray-head", "ray-worker")
PERIODS = {"mlflow": 120, "ray-head": 150, "ray-worker": 150}
"""Seconds in which a service may start, as compose or its image says; the others have 60."""
SETTINGS = ("FMNIST_NOTEBOOK_PORT", "FMNIST_TENSORBOARD_PORT", "FMNIST_MLFLOW_PORT", "FMNIST_SERVICE_PORT")
PATIENT_DOCTOR = """\
from fmnist.__main__ import main
from fmnist.ops import containers, doctor, remote
doctor.PATIENCE = containers.PATIENCE = remote.PATIENCE = 180
main(["doctor", "--json"])
"""
"""`fmnist doctor --json`, to which a busy machine is no fault."""


def quick(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """What has Compose look each second whether a service has started, where the engine can; users have 5 seconds."""
    asked = ["docker", "version", "--format", "{{.Server.APIVersion}}"]
    told = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout
    if tuple(map(int, told.strip().split("."))) < (1, 44):
        return {}
    periods = dict.fromkeys(SERVICES, 60) | PERIODS
    lines = [f"  {name}: {{healthcheck: {{start_interval: 1s, start_period: {s}s}}}}" for name, s in periods.items()]
    (folder / "quick.yaml").write_text("\n".join(["services:", *lines]))
    return {"COMPOSE_FILE": "compose.yaml:quick.yaml"}


class Platform:
    """The platform of a copy of the checkout, on ports of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], **settings: str) -> None:
        self.folder = folder
        subprocess.run(["sh", "-c", COPY, "sh", folder], cwd=ROOT, check=True)
        with ExitStack() as held:
            sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in SETTINGS]
            ports = {name: str(taken.getsockname()[1]) for name, taken in zip(SETTINGS, sockets, strict=True)}
        self.name = f"fmnist-test-{uuid.uuid4().hex[:8]}"
        own = {"FMNIST_SYNC_WAIT": "180"}  # a busy machine is no fault
        own |= {"PLATFORM_NAME": self.name, "NOTEBOOK_CONTAINER": f"{self.name}-notebook"} | quick(folder, environment)
        foreign = ("FMNIST_", "MLFLOW_", "COMPOSE_", "JUPYTER_", "PLATFORM_", "RAY_", "MAKE", "MFLAGS", "ARGS")
        self.environment = {key: value for key, value in environment.items() if not key.startswith(foreign)}
        self.environment |= ports | own | settings
        pages = (f"http://localhost:{ports[name]}" for name in SETTINGS)
        self.notebook, self.tensorboard, self.mlflow, self.service = pages
        self.ports = {name: int(port) for name, port in ports.items()}

    def run(self, *command: str, check: bool = True, **options: Any) -> "subprocess.CompletedProcess[str]":
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        options = {"cwd": self.folder, "env": self.environment, "text": True, "check": False} | quiet | options
        done = subprocess.run(command, **options)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def begin(self, *command: str) -> "subprocess.Popen[str]":
        """A command that goes on beside what is done next."""
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, **pipes)

    def make(self, *targets: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        return self.run("make", "--silent", *targets, **options)

    def complaint(self, *targets: str, **environment: str) -> str:
        """The one line that make's own verb ends with."""
        done = self.make(*targets, check=False, env=self.environment | environment)
        assert done.returncode != 0 and "Traceback" not in done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("platform: ")]
        return str(line.removeprefix("platform: "))

    def compose(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        return self.run("docker", "compose", *arguments, **options)

    def inside(self, *command: str, service: str = "notebook", **options: Any) -> "subprocess.CompletedProcess[str]":
        """A command in a service's container."""
        return self.compose("exec", "--no-TTY", service, *command, **options)

    def few_images(self) -> str:
        """A few hundred real images, and the folder where the notebook's container finds them."""
        folder = self.folder / "var" / "data" / "few"
        if not folder.exists():
            folder.mkdir()
            for file in (ROOT / "tests" / "data").glob("*ubyte*"):
                shutil.copy2(file, folder)
        return "/workspace/var/data/few"

    def train_few(self, epochs: int) -> list[str]:
        """The command that trains on them, some seconds."""
        options = ["--epochs", str(epochs), "--batch-size", "64", "--data", self.few_images(), "--json"]
        return ["fmnist", "train", *options]

    def inspect(self, service: str) -> dict[str, Any]:
        name = f"{self.name}-notebook" if service == "notebook" else f"{self.name}-{service}-1"
        return dict(json.loads(self.run("docker", "inspect", name).stdout)[0])

    def kill(self, service: str) -> dict[str, Any]:
        """With -9, from outside, as whoever may use Docker can; after `docker kill` no restart policy acts.

        Gives what the container was.
        """
        victim = self.inspect(service)
        command = ["--entrypoint", "sh", f"{self.name}/postgres", "-c", f"kill -9 {victim['State']['Pid']}"]
        self.run("docker", "run", "--rm", "--network", "none", "--pid", "host", "--user", "0", *command)
        return victim

    def wait_until_healthy(self, service: str) -> None:
        self.wait(lambda: self.inspect(service)["State"]["Health"]["Status"] == "healthy", f"{service} to be healthy")

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        until = time.monotonic() + WAIT
        while not (found := condition()):
            assert time.monotonic() < until, f"waited in vain for {what}"
            time.sleep(0.5)
        return found

    def remove(self) -> None:
        if (self.folder / ".env").exists():
            self.compose("down", "--volumes", "--remove-orphans", "--rmi", "all", "--timeout", "5")

    @property
    def http(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # no proxy stands between; and no cookie of an earlier request
        return session

    @property
    def token(self) -> str:
        return (self.folder / "secrets" / "jupyter_token").read_text()

    def mlflow_post(self, endpoint: str, **values: Any) -> Any:
        return self._mlflow("POST", endpoint, json=values)

    def mlflow_get(self, endpoint: str, **values: Any) -> Any:
        return self._mlflow("GET", endpoint, params=values)

    def _mlflow(self, method: str, endpoint: str, **options: Any) -> Any:
        answer = self.http.request(method, f"{self.mlflow}/api/2.0/mlflow/{endpoint}", timeout=60, **options)
        answer.raise_for_status()
        return answer.json()

    def tracked(self, run_id: str) -> dict[str, Any]:
        (found,) = self.found(run_id)
        return found

    def found(self, run_id: str) -> list[dict[str, Any]]:
        """The run in MLflow, or nothing yet."""
        named = self.mlflow_post("experiments/search", filter="name = 'fashion-mnist'", max_results=1)
        experiments = [experiment["experiment_id"] for experiment in named.get("experiments", [])]
        chosen = {"experiment_ids": experiments or ["-1"], "filter": f"tags.`fmnist.run_id` = '{run_id}'"}
        return list(self.mlflow_post("runs/search", **chosen).get("runs", []))

    def steps(self, run_id: str, score: str) -> tuple[list[int], list[int]]:
        """The steps of a score of a run: (in MLflow, in TensorBoard)."""
        run = self.tracked(run_id)["info"]["run_id"]
        points = self.mlflow_get("metrics/get-history", run_id=run, metric_key=score).get("metrics", [])
        shown = self.http.get(
            f"{self.tensorboard}/data/plugin/scalars/scalars", params={"run": run_id, "tag": score}, timeout=60
        )
        there = [int(step) for _, step, _ in shown.json()] if shown.ok else []
        return [int(point.get("step", 0)) for point in points], there
