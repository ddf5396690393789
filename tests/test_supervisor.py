import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest

from fmnist.errors import Failure
from fmnist.supervisor import Logs, Supervisor

SLEEP = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)")


def run(folder: Path, watch: object, **commands: tuple[str, ...]) -> None:
    supervisor = Supervisor(Logs(folder), watch)  # type: ignore[arg-type]
    for name, command in commands.items():
        supervisor.add(name, command, os.environ)
    supervisor.run()


def test_one_that_ends_ends_the_others_and_is_named_with_its_last_words(tmp_path: Path) -> None:
    ends = (sys.executable, "-c", "print('an ERROR\\nno room on disk'); raise SystemExit(3)")
    with pytest.raises(Failure, match=r"Short: ended with exit code 3; it last said: no room on disk; see .*short.log"):
        run(tmp_path, lambda supervisor: None, Long=SLEEP, Short=ends)
    assert (tmp_path / "short.log").read_text() == "an ERROR\nno room on disk\n"


def test_one_that_is_killed_is_named_and_its_children_end_too(tmp_path: Path) -> None:
    code = (
        "import os, signal, subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    with pytest.raises(Failure, match="Dead: was killed by SIGKILL") as caught:
        run(tmp_path, lambda supervisor: None, Dead=(sys.executable, "-c", code), Long=SLEEP)
    child = int((tmp_path / "dead.log").read_text())
    assert "Dead" in str(caught.value)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_and_is_no_failure(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    main = threading.main_thread().ident
    assert main is not None
    run(tmp_path, lambda supervisor: signal.pthread_kill(main, number), One=SLEEP, Other=SLEEP)
    assert signal.getsignal(number) is before


def test_what_the_watch_finds_ends_all(tmp_path: Path) -> None:
    def watch(supervisor: Supervisor) -> None:
        raise Failure("One", "does not answer")

    with pytest.raises(Failure, match="One: does not answer"):
        run(tmp_path, watch, One=SLEEP)


def test_a_terminal_sees_what_alarms_and_the_log_everything(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = ["all is well", "[E 2026-01-01 ServerApp] lost", "2026/01/01 WARNING mlflow: odd", "[W 2026-01-01] 403"]
    talk = (sys.executable, "-c", f"for line in {lines}: print(line)")
    with pytest.raises(Failure):
        run(tmp_path, lambda supervisor: None, Talk=talk)
    assert (tmp_path / "talk.log").read_text().splitlines() == lines
    shown = capfd.readouterr().err
    assert [line in shown for line in lines] == [False, True, True, False]
    assert "Talk" in shown
