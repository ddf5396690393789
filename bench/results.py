"""What the benchmarks share: which machine this is, what was measured already, and their sections in RESULTS.md."""

import hashlib
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "RESULTS.md"
STORE = RESULTS.parents[1] / "var" / "bench"


def machine() -> str:
    """Processor, cores, arithmetic, system, and what becomes of freed memory."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    return f"{name}, {os.cpu_count()} cores, {arithmetic()}, {platform.system()} {platform.machine()}, {memory()}"


def arithmetic() -> str:
    """The widest arithmetic that the processor has, which decides what a product costs."""
    import torch

    has = torch.cpu.get_capabilities()
    ways = {"AMX with bf16": "amx_bf16", "AVX-512 with bf16": "avx512_bf16", "AVX-512": "avx512_f", "AVX2": "avx2"}
    return next((way for way, name in ways.items() if has.get(name)), "neither AVX2 nor more")


def memory() -> str:
    """What becomes of freed memory, on which a training's speed depends."""
    if "malloc" in os.environ.get("LD_PRELOAD", ""):
        return Path(os.environ["LD_PRELOAD"]).name.partition(".")[0].removeprefix("lib")
    return "glibc keeping freed memory" if "MALLOC_TRIM_THRESHOLD_" in os.environ else "the system's allocator"


def told(values: list[float], form: str) -> str:
    """Their median and range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def keep(mark: str, section: str) -> None:
    """Replace the section between two `mark`s in RESULTS.md, or add it."""
    head, _, rest = RESULTS.read_text().partition(mark)
    _, _, tail = rest.partition(mark)
    RESULTS.write_text(f"{head.rstrip()}\n\n{mark}\n{section}\n{mark}\n{tail.lstrip()}")


class Measurements:
    """What was measured, a line each, under names; a name that is there is not measured again."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._known: dict[str, Any] = dict(json.loads(line) for line in lines)

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        if name not in self._known:
            self._known[name] = measure()
            line = json.dumps([name, self._known[name]])
            if self._path:
                with self._path.open("a") as file:
                    file.write(f"{line}\n")
            print(line[:200], flush=True)
        return self._known[name]


def measurements(kind: str, sources: Iterable[Path], fresh: bool, store: Path = STORE) -> Measurements:
    """Those of a kind, with these sources, on this machine, as far as they go."""
    content = b"".join(source.read_bytes() for source in sorted(sources))
    digest = hashlib.sha256(content + machine().encode()).hexdigest()
    store.mkdir(parents=True, exist_ok=True)
    path = store / f"{kind}-{digest[:12]}.jsonl"
    if fresh:
        path.unlink(missing_ok=True)
    return Measurements(path)
