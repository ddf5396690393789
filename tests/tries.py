"""Faults that are tried many times, counted, and told in a table: pytest's hooks for it, which conftest.py takes in.

A test marked `fault(name, few, full)` is one row: its `seed` runs over `few` numbers, with FULL=1 over `full`; TRY=7
tries that seed alone. What passes under FULL=1 is noted in var/faults.json and not tried again while its sources are
the same; what fails is noted too, and counts as lost though it may pass later. `--fresh` forgets all that. The counts
are written beside it, as docs/reliability.md shows them. With several processes each collects the same tries, and the
one that hears of all outcomes counts them.
"""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fmnist.files import write_whole

ROOT = Path(__file__).parents[1]
FULL = bool(os.environ.get("FULL"))
NOTES, TABLE = ROOT / "var" / "faults.json", ROOT / "var" / "faults.md"
SHARED = (
    "constraints.txt",
    "fmnist/**/*.py",
    "compose.yaml",
    "platform/*",
    "platform/[a-v]*/*",  # not wheels/
    "tests/*.py",
    "tests/data/*.gz",
    "tests/platform/conftest.py",
    "tests/platform/platforms.py",
    "tests/platform/writers.py",
    "tests/faults/conftest.py",
    "tests/faults/warm.py",
    "tests/faults/befalling.py",
    "tests/faults/servers.py",
)


def row_of(tried: pytest.Item | pytest.TestReport) -> str | None:
    return dict(tried.user_properties).get("fault")  # type: ignore[return-value]


@cache
def sources(file: str) -> str:
    """A digest of what a try's outcome depends on. `file`: its test file, below the checkout."""
    files = [ROOT / file, *(file for pattern in SHARED for file in sorted(ROOT.glob(pattern)))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()[:16]


class Tries:
    """What was tried of each row, now and (FULL=1) earlier."""

    def __init__(self, noted: dict[str, str]) -> None:
        """`noted`: of earlier runs."""
        self.noted, self.known = noted, dict(noted)
        self.asked: Counter[str] = Counter()
        self.earlier: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.lost: dict[str, set[str]] = defaultdict(set)
        """Those that failed, also those that passed when they were tried once more."""

    def left(self, items: Iterable[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
        """(what is to be tried, what has passed already)."""
        todo: list[pytest.Item] = []
        done: list[pytest.Item] = []
        for item in items:
            if mark := item.get_closest_marker("fault"):
                row, name = mark.args[0], item.nodeid
                item.user_properties.append(("fault", row))  # its reports have it, in every process
                self.asked[row] += 1
                if self.noted.get(f"lost {name}") == sources(item.location[0]):
                    self.lost[row].add(name)
                if self.noted.get(name) == sources(item.location[0]):
                    self.earlier[row] += 1
                    done.append(item)
                    continue
            todo.append(item)
        if todo:  # whoever counts hears of it with the first report: an interrupted run has a table too
            todo[0].user_properties.append(("tries", self.collected()))
        return todo, done

    def collected(self) -> dict[str, Any]:
        """What a process tells the one that counts."""
        lost = {row: sorted(names) for row, names in self.lost.items()}
        return {"asked": dict(self.asked), "earlier": dict(self.earlier), "lost": lost}

    def _hear(self, told: dict[str, Any]) -> None:
        self.asked, self.earlier = Counter(told["asked"]), Counter(told["earlier"])
        for row, names in told["lost"].items():
            self.lost[row].update(names)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["tries"] = self.known  # also of one that takes another's place: it has to collect the same

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        if told := getattr(node, "workeroutput", {}).get("tries"):
            self._hear(told)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if told := dict(report.user_properties).get("tries"):
            self._hear(told)  # type: ignore[arg-type]
        if report.when == "call" and not report.skipped and (row := row_of(report)):
            self._note(report.nodeid, row, report.location[0], lost=report.failed)

    def _note(self, name: str, row: str, file: str, *, lost: bool) -> None:
        if lost:
            self.lost[row].add(name)
        else:
            self.passed[row] += 1
        if FULL:
            self.noted[f"lost {name}" if lost else name] = sources(file)
            NOTES.parent.mkdir(exist_ok=True)
            write_whole(NOTES, json.dumps(self.noted, indent=0))

    def table(self) -> list[str]:
        """Markdown: fault, tries, lost at the first try."""
        lines = ["| fault | tries | lost |", "|---|---|---|"]
        for row, asked in self.asked.items():
            passed, lost = self.earlier[row] + self.passed[row], len(self.lost[row])
            tried = max(passed, min(asked, passed + lost))
            lines.append(f"| {row} | {tried if tried == asked else f'{tried} of {asked}'} | {lost} |")
        return lines


TRIES = pytest.StashKey[Tries]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fresh", action="store_true", help="forget which tries of FULL=1 have passed already")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(name, few, full): a row of the fault table, and how often it is tried")
    if hasattr(config, "workerinput"):
        config.stash[TRIES] = Tries(config.workerinput["tries"])
        return
    kept = FULL and not config.getoption("fresh") and NOTES.exists()
    config.stash[TRIES] = Tries(json.loads(NOTES.read_text()) if kept else {})
    config.pluginmanager.register(config.stash[TRIES])  # it hears of every outcome


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker("fault")
    if mark and "seed" in metafunc.fixturenames:
        _, few, full = mark.args
        one = os.environ.get("TRY")
        metafunc.parametrize("seed", [int(one)] if one else range(full if FULL else few))


@pytest.hookimpl(trylast=True)  # after -k has made its choice
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:], done = config.stash[TRIES].left(items)
    if done:
        config.hook.pytest_deselected(items=done)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report: pytest.TestReport = yield
    if report.failed and (row := row_of(item)):
        seed = getattr(item, "callspec", None) and item.callspec.params.get("seed")  # type: ignore[attr-defined]
        again = "" if seed is None else f" (once more: TRY={seed} make test-faults ARGS='-k {item.name}')"
        report.sections.append(("fault", f"{row}, seed {seed}{again}"))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tries"] = session.config.stash[TRIES].collected()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    tries = config.stash[TRIES]
    if not tries.asked or config.option.collectonly:
        return
    terminalreporter.section("faults: tries, and how many lost anything")
    width = max(map(len, tries.asked))
    for line in tries.table()[2:]:
        fault, count, lost = (cell.strip() for cell in line.strip("|").split("|"))
        terminalreporter.write_line(f"{fault:{width}} {count:>9} {lost:>4}")
    if earlier := tries.earlier.total():
        terminalreporter.write_line(f"{earlier} of them passed in an earlier run, with these sources")
    if FULL and NOTES.parent.exists():
        TABLE.write_text("\n".join([*tries.table(), ""]))
