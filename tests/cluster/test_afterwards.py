import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fmnist.cluster.afterwards import OWNER, tidied

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
DRIVER = """
import os, subprocess, sys
from fmnist.cluster.afterwards import OWNER, tidied
folder = sys.argv[1]
with tidied(folder):
    left = subprocess.Popen(sys.argv[2:], env=os.environ | {OWNER: folder}, start_new_session=True)
    print(left.pid, flush=True)
    left.wait()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_what_a_driver_leaves_is_ended_and_nothing_else(tmp_path: Path, killed: bool) -> None:
    folder = tmp_path / "session"
    folder.mkdir()
    (folder / "log").write_text("a log")
    stranger = subprocess.Popen(SLEEP)
    try:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(folder), *SLEEP], stdout=subprocess.PIPE, text=True
        )
        assert driver.stdout is not None
        left = psutil.Process(int(driver.stdout.readline()))
        cleaner = [one for one in psutil.Process(driver.pid).children() if one != left]
        if killed:
            driver.kill()
        else:
            driver.terminate()
        driver.communicate()
        _, alive = psutil.wait_procs([left, *cleaner], timeout=30)
        assert not alive
        assert not folder.exists()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_block_that_ends_by_itself_is_tidied_before_it_is_left(tmp_path: Path) -> None:
    with tidied(str(tmp_path / "session")):
        (tmp_path / "session").mkdir()
    assert not (tmp_path / "session").exists()
    assert OWNER.startswith("RAY_")
