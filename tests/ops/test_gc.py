"""`fmnist gc`, as it is typed: what it would do, and that it does it when told."""

import json
from pathlib import Path

import pytest

from fmnist.ops.garbage import CHECKPOINTS, REGISTERED

from ..conftest import Command
from .places import LITTER, RUNS, Place, litter

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future


def test_the_command_says_what_it_would_do_and_does_it_when_told(place: Place, fmnist: Command) -> None:
    litter(place)
    place.delete_version(2)
    place.age(2)
    assert fmnist("gc")[1].splitlines()[0] == "would free 0 bytes of what is older than 7 days"
    code, out, _ = fmnist("gc", "--older-than", 1)
    assert code == 0
    assert "  checkpoints of finished runs" in out
    assert f"left: {CHECKPOINTS}, 2: {REGISTERED}" in out
    assert out.splitlines()[-1].endswith("fmnist gc --older-than 1 --yes")
    told = json.loads(fmnist("gc", "--older-than", 1, "--json")[1])
    assert told["freed"] is False
    assert {row["kind"]: row["names"] for row in told["kinds"]} == {**LITTER, CHECKPOINTS: [RUNS[1]]}
    code, out, _ = fmnist("gc", "--older-than", 1, "--yes")
    assert (code, out.splitlines()[0][:6]) == (0, "freed ")
    assert json.loads(fmnist("gc", "--older-than", 1, "--json")[1])["kinds"] == []


def test_a_new_workspace_has_nothing_to_free(fmnist: Command, home: Path) -> None:
    assert fmnist("gc") == (0, "would free 0 bytes of what is older than 7 days\n", "")
    assert not home.exists()
