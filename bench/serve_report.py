"""The serving benchmark's section of RESULTS.md."""

import re
import statistics
import subprocess
from pathlib import Path
from typing import Any

from results import arithmetic, machine
from servers import find_wrk

PINS = Path(__file__).parent / "peers" / "requirements-serve.txt"
KINDS = ("JSON", "raw", "PNG", "/invocations", "v2")


def report(
    found: dict[str, list[Any]],
    first: dict[str, list[float]],
    alone: dict[str, list[float]],
    crowds: dict[int, Any],
    parts: dict[str, list[float]],
    seconds: float,
) -> str:
    """`found`: by contender, what each round gave, ours first. Rates are images a second."""
    ours, *peers = found
    rounds = len(found[ours])
    return "\n".join(
        [
            f"## The service ({arithmetic()})",
            "",
            f"{machine()}, shared with wrk; 16 connections, kept alive; the same model, one image a request, but 256 "
            f"in v2's binary form; n = {rounds} x {seconds:g} s each, in turn, all started anew each time; "
            f"{versions()}. `make bench-serve`",
            "",
            f"| requests a second, median (range) | {' | '.join(KINDS[:4])} | v2, images/s |",
            "|---|---|---|---|---|---|",
            *(f"| {label} | {' | '.join(_rate(found[label], kind) for kind in KINDS)} |" for label in found),
            "",
            "| | p50 ms | p99 ms | memory, MB | first answer after, s |",
            "|---|---|---|---|---|",
            *(_more(label, found[label]) for label in found),
            "",
            "| fmnist serve against, round by round, median (range) | " + " | ".join(KINDS[:4]) + " |",
            "|---|---|---|---|---|",
            *(_ratios(peer, found[ours], found[peer]) for peer in peers),
            "",
            f"First answer, from {_listed(first, 's', 2)}.",
            "",
            f"A lone client's p50, raw: {_listed(alone, 'ms', 3)}; the one against the other "
            f"{_against(*alone.values())}.",
            "",
            *(_crowd(connections, crowd) for connections, crowd in crowds.items()),
            "",
            *_parts(parts),
        ]
    )


def versions() -> str:
    pins = dict(line.split("==") for line in PINS.read_text().split())
    told = subprocess.run([find_wrk(), "-v"], capture_output=True, text=True, check=False)
    wrk = re.search(r"wrk\s+(\S+)", told.stdout + told.stderr)
    named = ("ONNX Runtime", "onnxruntime"), ("uvicorn", "uvicorn[standard]"), ("FastAPI", "fastapi")
    named += ("LitServe", "litserve"), ("MLflow", "mlflow")
    return ", ".join([*(f"{shown} {pins[name]}" for shown, name in named), f"wrk {wrk[1] if wrk else '?'}"])


def _values(rounds: list[Any], kind: str) -> list[float]:
    return [each["asked"][kind]["rate"] for each in rounds if kind in each["asked"]]


def _rate(rounds: list[Any], kind: str) -> str:
    values = _values(rounds, kind)
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})" if values else ""


def _more(label: str, rounds: list[Any]) -> str:
    kind = next(iter(rounds[0]["asked"]))

    def middle(values: list[float], digits: int) -> str:
        return f"{statistics.median(values):,.{digits}f}"

    latencies = [middle([each["asked"][kind][name] for each in rounds], 1) for name in ("p50", "p99")]
    costs = middle([each["memory"] for each in rounds], 0), middle([each["started"] for each in rounds], 2)
    return f"| {label}, {kind} | {' | '.join([*latencies, *costs])} |"


def _ratios(peer: str, ours: list[Any], theirs: list[Any]) -> str:
    cells = [_against(_values(ours, kind), _values(theirs, kind)) for kind in KINDS[:4]]
    return f"| {peer} | {' | '.join(cells)} |"


def _against(ours: list[float], theirs: list[float]) -> str:
    ratios = [one / other for one, other in zip(ours, theirs, strict=False)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else ""


def _listed(found: dict[str, list[float]], unit: str, digits: int) -> str:
    count = len(next(iter(found.values())))
    parts = [
        f"{name} {statistics.median(values):.{digits}f} {unit} ({min(values):.{digits}f}-{max(values):.{digits}f})"
        for name, values in found.items()
    ]
    return f"{', '.join(parts)}, n = {count} each"


def _parts(parts: dict[str, list[float]]) -> list[str]:
    whole = parts[""]
    rows = [("the whole", whole), *((f"without {part}", costs) for part, costs in parts.items() if part)]
    return [
        "| processor time of the server for a request, raw, 16 connections | microseconds, median (range) |",
        "|---|---|",
        *(f"| {name} | {statistics.median(v):.0f} ({min(v):.0f}-{max(v):.0f}) |" for name, v in rows),
        "",
        f"n = {len(whole)} each, in turn. *Everything* leaves uvicorn, with an answer of as many bytes.",
    ]


def _crowd(connections: int, crowd: dict[str, Any]) -> str:
    statuses = ", ".join(f"{name}: {count:,}" for name, count in sorted(crowd["statuses"].items()))
    memory = crowd["memory"]
    accepted = "none" if crowd["p99_accepted"] is None else f"{crowd['p99_accepted']:.0f} ms"
    return (
        f"- {connections} connections that ask without a pause, JSON: {crowd['rate']:,.0f} answers a second "
        f"({statuses}); p99 of wrk's {crowd['p99_all']:.0f} ms; p99 of what is accepted, by one more client, "
        f"{accepted} (n = {crowd['accepted']:,}); memory {memory[0]:.0f} MB at first, {memory[-1]:.0f} MB at the end."
    )
