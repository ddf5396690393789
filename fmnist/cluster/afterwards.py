"""A process that outlives a driver and ends what is left of its Ray: agents and files, where it was killed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

OWNER = "RAY_STARTED_IN"
"""The variable by which the processes of one's own Ray are known: the folder of its files."""


@contextmanager
def tidied(folder: str) -> Iterator[None]:
    """At the end, however it comes, nothing runs any more that has OWNER set to `folder`, and the folder is gone."""
    command = [sys.executable, "-P", "-m", __name__, folder]
    with subprocess.Popen(
        command,
        env={name: value for name, value in os.environ.items() if name != OWNER},
        stdin=subprocess.PIPE,  # closed with the block
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ):
        yield


def end_all(folder: str) -> None:
    """End the processes that have OWNER set to `folder`, or a file of it open: the agents' environment is overwritten
    by the names that they give themselves. Not this process, and not the driver, which may have begun it."""
    import psutil

    for process in psutil.process_iter():
        if process.pid in (os.getpid(), os.getppid()):
            continue
        with suppress(psutil.Error):
            known = process.environ().get(OWNER) == folder
            if known or any(file.path.startswith(f"{folder}/") for file in process.open_files()):
                process.kill()


def main(folder: str) -> None:
    """Wait until the driver's end of the pipe is closed, by itself or by the system, and tidy up."""
    sys.stdin.read()
    end_all(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
