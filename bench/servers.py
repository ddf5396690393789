"""What the serving benchmark needs of processes: a server started, asked by wrk, weighed, ended."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

PATIENCE = 120
MEGABYTE = 10**6
SCRIPT = """\
local file = io.open("{body}", "rb")
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
{headers}
"""
COUNT = """\
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() counts = {} end
function response(status) counts[status] = (counts[status] or 0) + 1 end
function done()
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("counts")) do print("status " .. status .. " " .. count) end
  end
end
"""


class Question(NamedTuple):
    """A request, as it is sent again and again."""

    body: bytes
    headers: Mapping[str, str]
    images: int = 1


class Load(NamedTuple):
    """What wrk saw. Latencies in milliseconds."""

    rate: float
    p50: float
    p99: float
    statuses: dict[str, int]
    """How many answers had each, where that was asked; else how many were no 2xx or 3xx. Broken sockets, too."""


class Running(NamedTuple):
    """A server that answers."""

    port: int
    started: float
    """Seconds from its start to its first answer."""
    process: psutil.Process

    def memory(self) -> float:
        """Megabytes that its processes hold: RSS, what they share counted once, by PSS where the system tells it."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(getattr(one.memory_full_info(), "pss", one.memory_info().rss) for one in family) / MEGABYTE


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], path: str, question: Question | None, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """`command`, whose PORT is replaced, once it answers `question` (or a GET) at `path` with 200; ended afterwards."""
    port = free_port()
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [part.replace("PORT", str(port)) for part in command],
            env=os.environ | dict(environment or {}),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            while not answers(port, path, question):
                if process.poll() is not None or time.perf_counter() - started > PATIENCE:
                    log.seek(0)
                    raise SystemExit(f"{' '.join(command)}: does not answer\n{log.read().decode()[-2000:]}")
                time.sleep(0.005)
            yield Running(port, time.perf_counter() - started, psutil.Process(process.pid))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def answers(port: int, path: str, question: Question | None) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        if question is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, question.body, dict(question.headers))
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def find_wrk() -> str:
    found = shutil.which("wrk")
    if not found:
        raise SystemExit(
            "wrk: is not installed; on Debian and Ubuntu: apt install wrk, with Homebrew: brew install wrk"
        )
    return found


def load(port: int, path: str, question: Question, *, connections: int, seconds: float, statuses: bool = False) -> Load:
    """Ask as quickly as it answers. `statuses`: count them, which slows wrk."""
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder) / "body", Path(folder) / "ask.lua"
        body.write_bytes(question.body)
        headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in question.headers.items())
        script.write_text(SCRIPT.format(body=body, headers=headers) + (COUNT if statuses else ""))
        command = [find_wrk(), "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "--latency"]
        command += ["-s", str(script), f"http://127.0.0.1:{port}{path}"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = {status: int(count) for status, count in re.findall(r"status (\d+) (\d+)", told)}
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    if bad and not counts:
        counts["no 2xx or 3xx"] = int(bad[1])
    if broken := re.search(r"Socket errors: (.*)", told):
        counts["broken sockets"] = sum(map(int, re.findall(r"\d+", broken[1])))
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    assert rate, told
    return Load(float(rate[1]), _milliseconds(told, 50), _milliseconds(told, 99), counts)


def _milliseconds(told: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s)\s*$", told, re.MULTILINE)
    assert found, told
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]
