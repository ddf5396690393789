"""What the platform's tests share: an engine, the platform in a copy of the checkout, a kernel in it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from ..helpers import free_port
from .kernels import Kernel
from .platforms import Platform

ENGINE = Path(__file__).parent / "engine"
BROUGHT = "ENGINE_WAS_BROUGHT"
WITHOUT_ENGINE = ("test_notebook.py", "test_page.py", "test_scoring_parity.py", "test_service.py", "test_up.py")
S3 = {"COMPOSE_PROFILES": "s3", "ARTIFACTS_DESTINATION": "s3://artifacts/runs", "S3_ENDPOINT_URL": "http://s3:9000"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "last: takes away what other tests use")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The plain platform's tests first, then the cluster's."""

    def place(item: pytest.Item) -> int:
        names, given = getattr(item, "fixturenames", ()), getattr(getattr(item, "callspec", None), "params", {})
        on_cluster = "cluster" in names or given.get("store") == "s3"
        return on_cluster + (item.get_closest_marker("last") is not None)

    items.sort(key=place)


class Halves(LoadScopeScheduling):  # type: ignore[misc]
    """Of two processes one has all that needs an engine, in its order, and the other what needs none, a file a time."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        if file.parent.name == "faults":
            return nodeid
        return "containers" if file.parent.name == "platform" and file.name not in WITHOUT_ENGINE else str(file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Halves:
    return Halves(config, log)


@pytest.fixture(scope="session")
def engine() -> Iterator[dict[str, str]]:
    """The environment that leads to a Docker engine: this machine's, or one that is brought and stopped again."""
    bring = ENGINE / "engine.sh"
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        yield dict(os.environ)
        return
    shown = subprocess.run([bring, "start"], stdout=subprocess.PIPE, text=True, check=True).stdout
    try:
        yield os.environ | dict(line.split("=", 1) for line in shown.splitlines()) | {BROUGHT: "yes"}
    finally:
        subprocess.run([bring, "stop"], check=True)


@pytest.fixture(scope="session")
def first(engine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with its images, and with the wheels of all others."""
    if BROUGHT in engine:
        subprocess.run([ENGINE / "bases.sh"], env=engine, check=True)
    folder = tmp_path_factory.mktemp("platform")
    platform = Platform(folder, engine, ALLOWED_HOSTS="192.0.2.7, box.example.org")
    try:
        platform.make("wheels", "ARGS=--quiet", env=platform.environment | {"COMPOSE_PROFILES": "cluster"})
        platform.make("build", "ARGS=--quiet")
        yield platform
    finally:
        platform.remove()


@pytest.fixture(scope="session")
def make_platform(
    engine: dict[str, str], first: Platform, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Platform]]:
    """Makes platforms, not started. At the end nothing of them is left."""
    made: list[Platform] = []
    wheels = str(first.folder / "platform" / "wheels")

    def make(**settings: str) -> Platform:
        made.append(Platform(tmp_path_factory.mktemp("platform"), engine, WHEELS=wheels, **settings))
        made[-1].make("build", "ARGS=--quiet")
        return made[-1]

    try:
        yield make
    finally:
        for platform in made:
            platform.remove()


@pytest.fixture(scope="session")
def platform(first: Platform) -> Platform:
    """The one that most tests share: it runs, with Fashion-MNIST in its cache."""
    fetch = [sys.executable, "-m", "fmnist", "data"]
    environment = first.environment | {"FMNIST_HOME": str(first.folder / "var")}
    subprocess.run(fetch, cwd=first.folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    first.make("start")
    return first


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
