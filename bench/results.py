"""What the benchmarks share: which machine this is, and their sections in RESULTS.md."""

import os
import platform
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"


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


def keep(mark: str, section: str) -> None:
    """Replace the section between two `mark`s in RESULTS.md, or add it."""
    head, _, rest = RESULTS.read_text().partition(mark)
    _, _, tail = rest.partition(mark)
    RESULTS.write_text(f"{head.rstrip()}\n\n{mark}\n{section}\n{mark}\n{tail.lstrip()}")
