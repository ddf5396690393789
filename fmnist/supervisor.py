"""Several processes that live and end together: honcho's Manager, with its logs in files and its gaps closed.

Each process has a session of its own, so that a Ctrl-C of the terminal reaches this process alone, which then ends
the others in order.
"""

import multiprocessing
import multiprocessing.connection
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from honcho.manager import SYSTEM_PRINTER_NAME, Manager
from honcho.printer import Printer
from honcho.process import Process

from fmnist.errors import Failure, one_line
from fmnist.signals import ENDING

START_SECONDS = 30
STOP_SECONDS = 10
ALARMING = re.compile(r"\b(WARNING|ERROR|CRITICAL|FATAL)\b|^\[[EC] ")  # Jupyter writes [E date …]


class Logs(Printer):  # type: ignore[misc]  # honcho has no types
    """A file a process; what alarms is on stderr too."""

    def __init__(self, folder: Path) -> None:
        super().__init__(output=sys.stderr)
        self._folder, self._last = folder, dict[str, str]()
        self.quiet = False

    def path(self, name: str) -> Path:
        return self._folder / f"{name.lower()}.log"

    def last_of(self, name: str) -> str:
        """The last line that a process wrote."""
        return self._last.get(name, "nothing")

    def write(self, message: Any) -> None:
        if message.name == SYSTEM_PRINTER_NAME:
            return
        text = message.data.decode("utf-8", "replace")
        if text.strip():
            self._last[message.name] = one_line(text)[:300]
        with suppress(OSError), self.path(message.name).open("a") as file:  # a full disk ends no server
            file.write(text)
        if not self.quiet and ALARMING.search(text):
            super().write(message)


class _Child(Process):  # type: ignore[misc]
    """What stands between this process and a server, and forwards its lines."""

    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        # It is forked with the manager's handlers, which must not run here. No SIG_IGN: servers would inherit it.
        for number in (*ENDING, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        super().run(events, ignore_signals)

    def _send_message(self, data: Any, type: str = "line") -> None:
        super()._send_message(data, type)
        if type == "start":
            threading.Thread(target=self._end_orphans, daemon=True).start()
            threading.Thread(target=self._end_with_parent, daemon=True).start()

    def _end_orphans(self) -> None:
        """What a killed server leaves in its group keeps its output open, which honcho takes for a sign of life."""
        self._child.wait()
        _kill_group(self._child.pid)

    def _end_with_parent(self) -> None:
        """Where the manager was killed, nobody else ends the server."""
        parent = multiprocessing.parent_process()
        assert parent is not None
        multiprocessing.connection.wait([parent.sentinel])
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGTERM)
        time.sleep(STOP_SECONDS / 2)
        _kill_group(self._child.pid)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


class Supervisor(Manager):  # type: ignore[misc]
    """Runs processes until one ends or a signal comes, then ends all."""

    def __init__(self, logs: Logs, watch: Callable[["Supervisor"], None]) -> None:
        """`watch` is called in a thread once all are started; what it raises ends them all, and is raised by `run`."""
        super().__init__(logs)
        self._process_ctor = _Child
        self._logs, self._watch = logs, watch
        self._fallen: str | None = None
        self._trouble: Exception | None = None

    def add(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._logs.path(name).write_text("")
        self.add_process(name, f"exec {shlex.join(command)}", env=dict(environment))

    @property
    def ending(self) -> bool:
        return bool(self._terminating)

    def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP. Raises Failure, with its last words, where a process ends by itself."""
        before = {number: signal.getsignal(number) for number in (*ENDING, signal.SIGHUP)}
        if before[signal.SIGHUP] is not signal.SIG_IGN:  # nohup
            signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        try:
            self.loop()
        finally:
            for process in self._processes.values():  # all are ended, but where the loop itself failed
                if "pid" in process:
                    _kill_group(process["pid"])
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._trouble is not None:
            raise self._trouble
        if self._fallen is not None:
            raise self._failure(self._fallen, self._processes[self._fallen]["returncode"])

    def _failure(self, name: str, code: int) -> Failure:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        path = os.path.relpath(self._logs.path(name))
        return Failure(name, f"{how}; it last said: {self._logs.last_of(name)}; see {path}, mend that and start again")

    def terminate(self) -> None:
        """Ask all to end; who does not within STOP_SECONDS is killed."""
        if not self._terminating:
            self._fallen = next((name for name, process in self._processes.items() if "returncode" in process), None)
            self._logs.quiet = True  # what they say of being ended alarms nobody
            force = threading.Timer(STOP_SECONDS, self.kill)
            force.daemon = True
            force.start()
        super().terminate()

    def _start(self) -> None:
        # Signals wait until every process is known by its pid, which the handler needs.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            super()._start()
            self._wait_for_pids()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        threading.Thread(target=self._watch_over, daemon=True).start()

    def _wait_for_pids(self) -> None:
        later = []
        while not self._all_started():
            event = self.events.get(timeout=START_SECONDS)
            if event.type == "start":
                self._processes[event.name]["pid"] = event.data["pid"]
            else:
                later.append(event)
        for event in later:
            self.events.put(event)

    def _watch_over(self) -> None:
        try:
            self._watch(self)
        except Exception as error:  # noqa: BLE001 - `run` raises it, in the thread where it is of use
            self._trouble = error
            self.terminate()
