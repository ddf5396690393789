"""What is not installed: a command says how to get it, and does without what it does not need."""

import subprocess
import sys

import pytest

from .conftest import Command


@pytest.mark.parametrize(
    ("missing", "command", "extra"), [("onnxruntime", "evaluate x.onnx", "train"), ("uvicorn", "serve", "serve")]
)
def test_a_missing_package_says_how_to_get_it(
    fmnist: Command, monkeypatch: pytest.MonkeyPatch, missing: str, command: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for name in [name for name in sys.modules if name in ("fmnist.serve.server", "fmnist.serve.wiring")]:
        monkeypatch.delitem(sys.modules, name)
    code, _, err = fmnist(*command.split())
    told = f"{missing}: is not installed; in the checkout: make setup, or pip install '.[{extra}]'"
    assert (code, err) == (1, f"fmnist: {told}\n")


ALONE = """
import sys
from importlib.metadata import packages_distributions, requires
from packaging.requirements import Requirement

def plain(name):
    return name.lower().replace("_", "-")

there, left = set(), ["fmnist"]
while left:
    there.add(name := left.pop())
    needed = map(Requirement, requires(name) or [])
    left += {plain(one.name) for one in needed if not one.marker or one.marker.evaluate({"extra": ""})} - there
for module, owners in packages_distributions().items():
    if not there & set(map(plain, owners)):
        sys.modules[module] = None
sys.argv = ["fmnist", "--help"]
from fmnist.__main__ import main
main()
"""
"""`fmnist --help` where nothing is installed but what fmnist itself requires."""


def test_it_needs_what_it_says_it_needs() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
