"""What the tests share: a few hundred real images, and a place of their own for everything that is written."""

import contextlib
import importlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from fmnist.__main__ import main
from fmnist.data.dataset import Dataset
from fmnist.data.sources import find_local
from fmnist.progress import Silent
from fmnist.recipe import TrainConfig
from fmnist.run import Run
from fmnist.settings import Settings
from fmnist.tracking.journal import Journal
from fmnist.workspace import Workspace

from .helpers import DATA, ELSEWHERE, free_port, train_with_journal
from .tries import (  # noqa: F401 - pytest's hooks
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_generate_tests,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

# What somebody has set is nothing to the tests, nor do they reach their MLflow; and no proxy stands before our servers.
for _name in [name for name in os.environ if name.startswith("FMNIST_")]:
    del os.environ[_name]
for _name in ELSEWHERE:
    os.environ.pop(_name, None)
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, [os.environ.get(_name), "localhost", "127.0.0.1"]))

PLATFORM = Path(__file__).parents[1] / "platform"

Command = Callable[..., tuple[int, str, str]]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Names bytes by their number alone: gzip's hold the second, and every process must give a test the same name."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """400 training images (80 of them for validation) and 100 test images of Fashion-MNIST."""
    files = find_local(DATA)
    assert files is not None
    return files.read()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports one of the platform's scripts."""
    monkeypatch.syspath_prepend(PLATFORM)
    for file in PLATFORM.glob("*.py"):
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
    return importlib.import_module


@pytest.fixture
def no_docker(script: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is asked; and the platform's scripts find each other as scripts of one folder do."""
    monkeypatch.setenv("PATH", "")


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A command sets what signals do, for as long as its process lives: here only as long as the test.

    Each test begins with what a terminal gives; in the background or under nohup some signals would be ignored.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    dropped = sys.unraisablehook
    yield
    sys.unraisablehook = dropped
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of its own: the small data, nothing downloaded, everything written below the folder given."""
    monkeypatch.setenv("FMNIST_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("FMNIST_DATA", str(DATA))
    monkeypatch.setenv("FMNIST_DOWNLOAD", "no")
    monkeypatch.setenv("FMNIST_TRACKING", "no")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):  # MLflow itself sets the first
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "var"


@pytest.fixture
def workspace(home: Path) -> Workspace:
    return Workspace(Settings())


@pytest.fixture
def fmnist(home: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = 0
        with contextlib.suppress(SystemExit):
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as end:
                code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The inodes of what was synced to disk."""
    found, fsync = set[int](), os.fsync

    def note(descriptor: int) -> None:
        found.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return found


@pytest.fixture
def any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor has time, needs no room, and asks nobody who is really here."""
    from fmnist.ops import containers, doctor, machine, remote

    monkeypatch.setattr(doctor, "PATIENCE", 600)
    monkeypatch.setattr(containers, "PATIENCE", 60)
    monkeypatch.setattr(remote, "PATIENCE", 60)
    monkeypatch.setattr(machine, "LEAST_DISK", 0)
    monkeypatch.setenv("PATH", "")
    for name in ("MLFLOW", "TENSORBOARD", "NOTEBOOK", "SERVICE"):
        monkeypatch.setenv(f"FMNIST_{name}_PORT", str(free_port()))


TINY = TrainConfig(epochs=2, batch_size=64, precision="fp32")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Run:
    """A run of two epochs, done; read it, do not change it."""
    workspace = Workspace(Settings(home=tmp_path_factory.mktemp("finished"), data=DATA))
    return workspace.new_run(TINY, dataset, "cpu", name="tiny").train(Silent())


@pytest.fixture(scope="session")
def journalled(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Run:
    """A finished run of three epochs with its journal, sent nowhere; read it, do not change it."""
    config = TrainConfig(epochs=3, batch_size=64, precision="fp32")
    about = {"name": "a name", "note": "a note", "tags": {"team": "red"}}
    return train_with_journal(tmp_path_factory.mktemp("journalled"), config, dataset, **about)


@pytest.fixture(scope="session")
def three_versions(journalled: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace's folder in which three runs were tracked; copy it to change it."""
    from fmnist.tracking.mlflow_sink import MlflowSink

    home = tmp_path_factory.mktemp("three")
    records = Journal(journalled.journal).read()
    for number in (1, 2, 3):
        run = Run(home / "runs" / f"20260101-000000-0000{number}")
        shutil.copytree(journalled.folder, run.folder)
        sink = MlflowSink(
            run.folder, f"sqlite:///{home / 'mlflow.db'}", "fashion-mnist", "fashion-mnist", home / "artifacts"
        )
        for record in ({**records[0], "run_id": run.id}, records[1], records[-1]):
            sink.send(record)
    return home
