"""What people do to a command that runs, and where its output goes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmnist.run import Run

from .conftest import Command
from .helpers import DATA, until

FMNIST = [sys.executable, "-m", "fmnist"]


@pytest.fixture
def training(fmnist: Command, home: Path) -> Iterator["subprocess.Popen[str]"]:
    """A long one, which has just been started."""
    command = [*FMNIST, "train", "--epochs", "1000", "--batch-size", "64"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home.parent
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_training_that_can_go_on(
    training: "subprocess.Popen[str]", home: Path, number: signal.Signals, code: int
) -> None:
    until(lambda: list(home.glob("runs/*/checkpoint")), training)
    training.send_signal(number)
    _, err = training.communicate(timeout=120)
    assert training.returncode == code
    (run,) = (home / "runs").iterdir()
    assert err.startswith(f"fmnist: run {run.name}: interrupted, ")
    assert err.endswith(f"of 1000 epochs are saved; go on with: fmnist train --resume {run.name}\n")
    assert not list(run.glob(".*"))


def test_a_second_ctrl_c_does_not_take_the_hint_away(training: "subprocess.Popen[str]", home: Path) -> None:
    until(lambda: list(home.glob("runs/*/checkpoint")), training)
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        training.send_signal(number)
    _, err = training.communicate(timeout=30)
    assert "are saved; go on with: fmnist train --resume" in err
    assert err.count("\n") == 1
    assert training.returncode in (130, 143)


@pytest.mark.parametrize("wait", [0.05, 0.15, 0.3, 0.6, 1.2, 1.8])
def test_ctrl_c_while_it_starts_is_one_line_or_silent(training: "subprocess.Popen[str]", wait: float) -> None:
    time.sleep(wait)
    training.send_signal(signal.SIGINT)
    _, err = training.communicate(timeout=30)
    if "Traceback" not in err or "in main\n" in err:  # else Python itself was still starting
        assert err.count("\n") <= 1, err


def test_a_reader_that_leaves_early_is_no_error(fmnist: Command, home: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*FMNIST, "runs"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_current_folder_that_is_gone(fmnist: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert fmnist("runs") == (2, "", "fmnist: the current folder: is gone; change to one that is there\n")


@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        pytest.param(
            "> /dev/full",
            1,
            "fmnist: output: No space left on device; mend that and run the command again\n",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device here"),
        ),
    ],
)
def test_an_output_that_takes_nothing(fmnist: Command, home: Path, redirection: str, code: int, told: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m fmnist runs --json {redirection}", shell=True, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, told)


def test_a_terminal_that_knows_ascii_only(fmnist: Command, home: Path, finished: Run) -> None:
    command = [*FMNIST, "predict", "--model", finished.model, DATA / "t10k-images-idx3-ubyte.gz"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
