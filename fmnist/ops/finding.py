"""What doctor tells of one thing: how it is, and what to do about it."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from fmnist.errors import one_line

State = Literal["ok", "off", "warning", "bad"]
"""`off`: not there, and not missed."""


class Finding(NamedTuple):
    what: str
    state: State
    found: str
    remedy: str = ""


def complaint(what: str, state: State, error: Exception) -> Finding:
    """What an error of the house says, `given: problem; what to do`, as a finding."""
    problem, mark, remedy = one_line(error).rpartition("; ")
    return Finding(what, state, problem, remedy) if mark else Finding(what, state, remedy, "mend that, and look again")


def is_well(findings: Iterable[Finding]) -> bool:
    return all(finding.state != "bad" for finding in findings)
