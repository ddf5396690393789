"""Commands without their imports: a process that has PyTorch and MLflow loaded, and forks itself for each command.

    python warm.py SOCKET

It has trained, exported and tracked once, so that no command does anything for the first time. Who connects sends one
JSON line ({arguments, environment, out, err, fault}) and gets two: {"pid": …} at the start and {"code": …} at the end.
What runs is a process of its own, which can be killed as any other; it is spared the seconds in which nothing can be
lost. A training's shipper is forked from it in the same way.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from befalling import Lines, hold, kill_at_call, time_tracking  # beside this file, which is run as a program


class Shipper:
    """As much of a Popen as a tracker needs, of a process that is forked, not started."""

    def __init__(self, command: Callable[[], object], log: Path) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.nice(10)
            _run(command, log, log)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        for _ in range(int(timeout / 0.02) + 1):
            if (code := self.poll()) is not None:
                return code
            time.sleep(0.02)
        raise subprocess.TimeoutExpired("shipper", timeout)

    def terminate(self, number: int = signal.SIGTERM) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.terminate(signal.SIGKILL)


def _run(command: Callable[[], object], out: Path, err: Path) -> NoReturn:
    """In a process that was forked for it: what another command holds open is closed first, its locks above all."""
    code: object = 1
    try:
        for descriptor, path in ((0, Path(os.devnull)), (1, out), (2, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666), descriptor)
        os.closerange(3, 1024)
        command()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 - the process ends with it
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _fork_shippers() -> None:
    from fmnist.__main__ import main
    from fmnist.tracking import wiring

    def start(arguments: list[str], home: Path, log_file: Path) -> Shipper:
        os.environ["FMNIST_HOME"] = str(home)
        return Shipper(lambda: main(["sync", *arguments]), log_file)

    wiring._start_sync = start  # type: ignore[assignment]


def _command(request: dict[str, Any]) -> None:
    from fmnist.__main__ import main

    os.environ.update(request["environment"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _fork_shippers()
    fault = request["fault"] or {}
    if "call" in fault:
        kill_at_call(fault["call"], fault["number"])
    elif "hold" in fault:
        hold(fault["hold"], fault["until"])
    elif "share" in fault:
        time_tracking(fault["share"])
    for kind in fault.get("lines", []):
        Lines(kind["in"], kind.get("at"), os.getpid(), kind.get("whom", ""), kind.get("count"))
    main(request["arguments"])


def _keep(connection: socket.socket) -> None:
    """In a process of its own: run the command in another, and tell how it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(connection.makefile().readline())
    if (pid := os.fork()) == 0:
        _run(lambda: _command(request), Path(request["out"]), Path(request["err"]))
    connection.sendall(json.dumps({"pid": pid}).encode() + b"\n")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps({"code": code}).encode() + b"\n")


def warm_up() -> None:
    """Export and track here what a child has trained: after a backward pass of its own, PyTorch cannot be forked."""
    import fmnist.engine.fast
    import fmnist.training  # noqa: F401 - what a training imports
    from fmnist.export import export_model
    from fmnist.models import build_model
    from fmnist.workspace import open_workspace

    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"FMNIST_HOME": folder, "FMNIST_TRACKING": "yes"}
        log = Path(folder) / "log"
        Shipper(_train_unsent, log).wait(120)
        workspace = open_workspace()
        (run,) = workspace.runs()
        assert workspace.sync(run) == {}, log.read_text()
        export_model(
            build_model("cnn", 10, 0), Path(folder) / "x", {"class_names": "[]"}, workspace.data_of(run).test.images
        )
    os.environ.clear()
    os.environ.update(before)


def _train_unsent() -> None:
    from fmnist.__main__ import main
    from fmnist.tracking import wiring

    wiring._start_sync = lambda *given: Shipper(lambda: None, Path(os.devnull))  # type: ignore[assignment]
    main(["train", "--epochs", "1", "--batch-size", "64"])


def serve(address: str) -> None:
    os.environ.setdefault("MPLBACKEND", "agg")
    warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen()
        Path(f"{address}.new").rename(address)  # who sees it may connect
        server.settimeout(1)
        parent = os.getppid()
        while os.getppid() == parent:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                server.close()
                _keep(connection)
                os._exit(0)
            connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
