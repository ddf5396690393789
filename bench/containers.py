"""What the platform weighs and how long it takes to start: a copy of the checkout, on ports of its own.

make bench-platform        n = 3 cold and warm starts, some minutes, into bench/RESULTS.md
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from results import keep, machine

ROOT = Path(__file__).parents[1]
MARK = "<!-- platform -->"
NAME = f"fmnist-bench-{os.getpid()}"
BASES = {"postgres": "postgres:17-bookworm"}
BASE = "python:3.11-slim-bookworm"
IMAGES = ("postgres", "tensorboard", "mlflow", "notebook", "api")
PORTS = ("FMNIST_NOTEBOOK_PORT", "FMNIST_TENSORBOARD_PORT", "FMNIST_MLFLOW_PORT", "FMNIST_SERVICE_PORT")
COPY = 'git ls-files -z | tar -c --null -T - | tar -x -C "$1"'
MEGABYTE = 10**6  # as `docker images` counts
SETTLED = 60  # seconds until what a start did is over


class Copy:
    """A copy of the checkout with a platform of its own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        subprocess.run(["sh", "-c", COPY, "sh", folder], cwd=ROOT, check=True)
        with ExitStack() as held:
            taken = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
            ports = {name: str(one.getsockname()[1]) for name, one in zip(PORTS, taken, strict=True)}
        self.folder = folder
        own = {"PLATFORM_NAME": NAME, "NOTEBOOK_CONTAINER": f"{NAME}-notebook"}
        foreign = ("FMNIST_", "MLFLOW_", "COMPOSE_", "JUPYTER_", "PLATFORM_", "RAY_")
        foreign += ("MAKE", "MFLAGS", "ARGS")  # of the make that this runs in
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.environment |= ports | own | settings

    @classmethod
    @contextmanager
    def built(cls, **settings: str) -> Iterator[Self]:
        """With its images. However this ends, it goes with all it has."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        with tempfile.TemporaryDirectory() as scratch:
            copy = cls(Path(scratch), **settings)
            try:
                if "WHEELS" not in copy.environment:
                    copy.run("make", "wheels", "ARGS=--quiet")
                copy.run("make", "build")
                yield copy
            finally:
                if (copy.folder / ".env").exists():  # without it there is nothing, and compose asks for it
                    copy.run("docker", "compose", "down", "--volumes", "--rmi", "all")

    def run(self, *command: str, given: str = "") -> str:
        """What it prints; `given` is its input."""
        options = {"cwd": self.folder, "env": self.environment, "input": given, "text": True}
        done = subprocess.run(command, capture_output=True, check=False, **options)
        if done.returncode:
            raise SystemExit(done.stderr)
        return done.stdout

    def inside(self, service: str, *command: str, given: str = "") -> str:
        """What a command in a service's container prints."""
        return self.run("docker", "compose", "exec", "--no-TTY", service, *command, given=given)

    def start(self) -> float:
        """Seconds until all is healthy."""
        started = time.perf_counter()
        self.run("make", "start")
        return time.perf_counter() - started

    def memory(self) -> dict[str, float]:
        """Megabytes by service, as cgroups count them without the page cache that can be dropped."""
        names = self.run("docker", "compose", "ps", "--format", "{{.Service}} {{.ID}}").splitlines()
        shown = {}
        for service, identity in (line.split() for line in names):
            told = json.loads(self.run("docker", "stats", "--no-stream", "--format", "json", identity))
            shown[service] = _megabytes(told["MemUsage"].split(" / ")[0])
        return shown


def _megabytes(text: str) -> float:
    number = float(text.rstrip("KMGiB"))
    return number * {"K": 1024, "M": 1024**2, "G": 1024**3}[text.removesuffix("iB")[-1]] / MEGABYTE


def size(image: str) -> float:
    command = ["docker", "image", "inspect", "--format", "{{.Size}}", image]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / MEGABYTE


def section(cold: list[float], warm: list[float], memory: dict[str, float]) -> str:
    version = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    rows = []
    for name in IMAGES:
        base = size(BASES.get(name, BASE))
        rows.append(f"| {name} | {size(f'{NAME}/{name}') - base:,.0f} | {base:,.0f} | {memory[name]:,.0f} |")
    starts = [
        f"| {kind} | {statistics.median(times):.1f} | {min(times):.1f}-{max(times):.1f} |"
        for kind, times in (("cold: no database yet", cold), ("warm: after make stop", warm))
    ]
    return "\n".join(
        [
            "## The platform",
            "",
            f"{machine()}; Docker {version}; n = {len(cold)} starts each. `make bench-platform`",
            "",
            "| image | layers above the base, MB | base, MB | memory idle, MB |",
            "|---|---|---|---|",
            *rows,
            f"| all five | | | {sum(memory.values()):,.0f} |",
            "",
            "| make start, until all is healthy | seconds, median | range |",
            "|---|---|---|",
            *starts,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=3)
    arguments = parser.parse_args()
    cold, warm = [], []
    with Copy.built() as copy:
        for _ in range(arguments.starts):
            cold.append(copy.start())
            copy.run("make", "stop")
            warm.append(copy.start())
            print(f"cold {cold[-1]:.1f} s, warm {warm[-1]:.1f} s", flush=True)
            if len(cold) < arguments.starts:
                copy.run("docker", "compose", "down", "--volumes")
        time.sleep(SETTLED)
        text = section(cold, warm, copy.memory())
    print(text)
    if arguments.starts >= 3:
        keep(MARK, text)


if __name__ == "__main__":
    main()
