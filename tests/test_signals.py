import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fmnist import signals
from fmnist.data.dataset import Dataset
from fmnist.errors import Interrupted
from fmnist.progress import Silent
from fmnist.recipe import TrainConfig
from fmnist.settings import Settings
from fmnist.workspace import Workspace


def run(script: str) -> tuple[int, str]:
    """(exit code, stderr) of a process with our handlers; `script` may hear a signal."""
    begin = "import signal, sys, time\nfrom fmnist import signals\n"
    done = subprocess.run([sys.executable, "-P", "-c", begin + script], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def test_a_signal_that_somebody_dropped_ends_the_training(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Workspace(Settings(home=tmp_path)).new_run(TrainConfig(epochs=1000), dataset, "cpu")
    monkeypatch.setattr(signals, "received", signal.SIGINT)
    with pytest.raises(Interrupted, match="before its first epoch was completed"):
        job.train(Silent())


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_within_an_import_it_ends_the_process_though_exceptions_are_dropped(name: str, code: int) -> None:
    script = (
        "signals.raise_on_signals()\n"
        f"with signals.importing():\n    try: signal.raise_signal(signal.{name})\n    except BaseException: pass\n"
        "sys.exit('dropped')"
    )
    assert run(script) == (code, "fmnist: interrupted\n")


def test_one_that_a_finalizer_drops_is_no_traceback_and_heard_later() -> None:
    script = (
        "signals.raise_on_signals()\n"
        "class Some:\n    def __del__(self): signal.raise_signal(signal.SIGINT)\n"
        "Some()\ntry: signals.check_signals()\nexcept KeyboardInterrupt: sys.exit(7)"
    )
    assert run(script) == (7, "")


def test_after_an_import_it_raises_again() -> None:
    script = (
        "signals.raise_on_signals()\nwith signals.importing(): pass\n"
        "try: signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt: sys.exit(7)"
    )
    assert run(script) == (7, "")


@pytest.mark.parametrize(("before", "code"), [("SIG_DFL", 143), ("SIG_IGN", 0)])
def test_a_terminal_that_goes_ends_it_unless_it_was_told_to_stay(before: str, code: int) -> None:
    script = (
        f"signal.signal(signal.SIGHUP, signal.{before})\nsignals.raise_on_signals()\n"
        "try:\n    with signals.hangup_counts(): signal.raise_signal(signal.SIGHUP)\n"
        "except KeyboardInterrupt: signal.raise_signal(signal.SIGHUP); sys.exit(143)\n"  # it comes twice
        f"sys.exit(signal.getsignal(signal.SIGHUP) != signal.{before})"
    )
    assert run(script) == (code, "")


def test_the_exit_code_is_ours_wherever_it_was_raised(tmp_path: Path) -> None:
    script = (
        "import signal, sys\nfrom fmnist import signals\nsignals.raise_on_signals()\n"
        "try: exec('signal.raise_signal(signal.SIGTERM)')\nexcept KeyboardInterrupt: sys.exit(143)"
    )
    (tmp_path / "interrupted.py").write_text(script)
    done = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, b"")


def test_a_second_signal_raises_only_when_the_first_was_long_ago() -> None:
    script = (
        "signals.raise_on_signals()\n"
        "try: signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt: pass\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "signals.PATIENCE = 0\n"
        "try: signal.raise_signal(signal.SIGTERM)\nexcept KeyboardInterrupt: sys.exit(signals.received)"
    )
    assert run(script) == (signal.SIGTERM, "")


def test_whoever_has_handlers_of_their_own_keeps_them() -> None:
    script = (
        "with signals.importing():\n"
        "    try: signal.raise_signal(signal.SIGINT)\n    except KeyboardInterrupt: sys.exit(9)"
    )
    assert run(script) == (9, "")
