"""The count of tries that the fault table is made of: by one process and by two, what is lost is told."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFTEST = """
from tests.tries import (pytest_addoption, pytest_collection_modifyitems, pytest_configure, pytest_generate_tests,
    pytest_runtest_makereport, pytest_sessionfinish, pytest_terminal_summary)
"""
TESTS = """
import pytest

@pytest.mark.fault("a plug is pulled", 4, 9)
def test_plug(seed):
    assert seed != 2

@pytest.mark.fault("a plug is put in", 2, 9)
def test_other(seed):
    pass

def test_no_fault():
    pass
"""


@pytest.mark.parametrize("processes", ["0", "2"])
def test_tries_are_counted_by_row(tmp_path: Path, processes: str) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--numprocesses", processes, tmp_path]
    few = {name: value for name, value in os.environ.items() if name not in ("FULL", "TRY")}
    done = subprocess.run(command, cwd=ROOT, env=few, capture_output=True, text=True, check=False)
    lines = re.findall(r"^(a plug .*\S) +(\d+) +(\d+)$", done.stdout, re.MULTILINE)
    assert lines == [("a plug is pulled", "4", "1"), ("a plug is put in", "2", "0")], done.stdout
    assert "once more: TRY=2 make test-faults ARGS='-k test_plug[2]'" in done.stdout
    assert "1 failed, 6 passed" in done.stdout
