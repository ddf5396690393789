"""What the platform's tests share: an engine, the platform in a copy of the checkout, a kernel in it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import requests

from ..helpers import free_port
from .kernels import Kernel

ROOT = Path(__file__).parents[2]
ENGINE = Path(__file__).parent / "engine"
WAIT = 300  # seconds; a busy machine is no fault
S3 = {"COMPOSE_PROFILES": "s3", "ARTIFACTS_DESTINATION": "s3://artifacts/runs", "S3_ENDPOINT_URL": "http://s3:9000"}
COPY = 'git ls-files -z -co --exclude-standard | tar -c --null -T - | tar -x -C "$1"'  # what git has, or would take
SETTINGS = ("FMNIST_NOTEBOOK_PORT", "FMNIST_TENSORBOARD_PORT", "FMNIST_MLFLOW_PORT", "FMNIST_SERVICE_PORT")


@pytest.fixture(scope="session")
def engine() -> Iterator[dict[str, str]]:
    """The environment that leads to a Docker engine: this machine's, or one that is brought and stopped again."""
    bring = ENGINE / "engine.sh"
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        yield dict(os.environ)
        return
    shown = subprocess.run([bring, "start"], stdout=subprocess.PIPE, text=True, check=True).stdout
    environment = os.environ | dict(line.split("=", 1) for line in shown.splitlines())
    try:
        subprocess.run([ENGINE / "bases.sh"], env=environment, check=True)
        yield environment
    finally:
        subprocess.run([bring, "stop"], check=True)


class Platform:
    """The platform of a copy of the checkout, on ports of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], **settings: str) -> None:
        self.folder = folder
        subprocess.run(["sh", "-c", COPY, "sh", folder], cwd=ROOT, check=True)
        with ExitStack() as held:
            sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in SETTINGS]
            ports = {name: str(taken.getsockname()[1]) for name, taken in zip(SETTINGS, sockets, strict=True)}
        self.name = f"fmnist-test-{uuid.uuid4().hex[:8]}"
        own = {"PLATFORM_NAME": self.name, "NOTEBOOK_CONTAINER": f"{self.name}-notebook"}
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


@pytest.fixture(scope="session")
def make_platform(
    engine: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Platform]]:
    """Makes platforms of what one `make wheels` fetched, not started. At the end nothing of them is left."""
    made: list[Platform] = []

    def make(**settings: str) -> Platform:
        wheels = {"WHEELS": str(made[0].folder / "platform" / "wheels")} if made else {}
        made.append(Platform(tmp_path_factory.mktemp("platform"), engine, **wheels, **settings))
        if not wheels:
            made[0].make("wheels", "ARGS=--quiet")
        made[-1].make("build", "ARGS=--quiet")
        return made[-1]

    try:
        yield make
    finally:
        for platform in made:
            platform.remove()


@pytest.fixture(scope="session")
def platform(make_platform: Callable[..., Platform]) -> Platform:
    """The one that most tests share: it runs, with Fashion-MNIST in its cache."""
    platform = make_platform(ALLOWED_HOSTS="192.0.2.7, box.example.org")
    fetch = [sys.executable, "-m", "fmnist", "data"]
    environment = platform.environment | {"FMNIST_HOME": str(platform.folder / "var")}
    subprocess.run(fetch, cwd=platform.folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    platform.make("start")
    return platform


@pytest.fixture(scope="session")
def cluster(make_platform: Callable[..., Platform]) -> Any:
    """A platform with an S3 server, and with Ray's head and a worker, a core each."""
    platform: Any = make_platform(**S3 | {"COMPOSE_PROFILES": "cluster,s3", "RAY_DASHBOARD_PORT": str(free_port())})
    platform.dashboard = f"http://127.0.0.1:{platform.environment['RAY_DASHBOARD_PORT']}"
    platform.told = platform.make("start").stdout
    platform.ray_token = (platform.folder / "secrets" / "ray_token").read_text()
    return platform


@pytest.fixture
def kernel(platform: Platform) -> Iterator[Kernel]:
    with closing(Kernel(platform)) as live:
        yield live


@pytest.fixture(scope="session")
def story(platform: Platform) -> str:
    """The notebook, cell by cell, in its container. Gives the id of its whole run."""
    notebook = json.loads((platform.folder / "notebooks" / "fashion_mnist.ipynb").read_text())
    with closing(Kernel(platform)) as live:
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                live.run("".join(cell["source"]))
        return live.value("run.id").strip("'")
