"""What befalls a command of warm.py's: it is killed at a call or at a line, held, or timed."""

import contextlib
import functools
import importlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

TRACED = ("/fmnist/", "/mlflow/store/artifact/", "/mlflow/onnx/")
"""Whose lines are counted as moments at which a process may be killed."""


def wrap(place: str, around: Callable[..., Any]) -> None:
    """Have `around` called in place of `module:name.name`, with it as first argument."""
    module, names = place.split(":")
    *path, name = names.split(".")
    owner = functools.reduce(getattr, path, importlib.import_module(module))
    real = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: around(real, *args, **kwargs))


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_at_call(place: str, number: int) -> None:
    """Kill the process that makes this call, before it does."""
    calls = itertools.count(1)

    def around(real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            kill([os.getpid()])
        return real(*args, **kwargs)

    wrap(place, around)


def time_tracking(file: str) -> None:
    """Write [seconds that the training's thread spent in its tracker, those of its processor, those of all]."""
    inside: list[tuple[float, float]] = []

    def timed(real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        began, worked = time.perf_counter(), time.thread_time()
        try:
            return real(*args, **kwargs)
        finally:
            inside.append((time.perf_counter() - began, time.thread_time() - worked))

    def whole(real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return real(*args, **kwargs)
        finally:
            Path(file).write_text(json.dumps([*map(sum, zip(*inside, strict=True)), time.perf_counter() - began]))

    wrap("fmnist.tracking.tracker:JournalTracker.commit", timed)
    wrap("fmnist.tracking.tracker:JournalTracker.end", timed)
    wrap("fmnist.training:run_training", whole)


def hold(place: str, file: str) -> None:
    """Have this call wait until the file is there."""

    def around(real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        while not Path(file).exists():
            time.sleep(0.02)
        return real(*args, **kwargs)

    wrap(place, around)


class Lines:
    """Counts the lines run in some functions, and kills at one of them."""

    def __init__(self, places: list[str], at: int | None, trainer: int, whom: str, count: str | None) -> None:
        self.done, self.at, self.trainer, self.whom, self.count = 0, at, trainer, whom, count
        for place in places:
            wrap(place, self.traced)

    def traced(self, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            return real(*args, **kwargs)
        finally:
            sys.settrace(before)
            if self.count:
                Path(self.count).write_text(str(self.done))

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not any(part in frame.f_code.co_filename for part in TRACED):
            return None
        if event == "line":
            self.done += 1
            if self.done == self.at:
                kill([self.trainer, os.getpid()] if self.whom == "both" else [self.trainer])
        return self.trace
