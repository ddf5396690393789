"""`fmnist doctor` on the running platform: all is well; and what is not is named."""

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from .platforms import PATIENT_DOCTOR

pytestmark = pytest.mark.filterwarnings("ignore")

MAY_BE_OFF = {"data", "gpu", "backup"}  # as this machine has them, and none need be made


def doctor(platform: Any) -> tuple[int, dict[str, dict[str, str]]]:
    """(exit code, findings by what was looked at), as whoever started the platform sees it."""
    home = {"FMNIST_HOME": str(platform.folder / "var")}
    command = [sys.executable, "-c", PATIENT_DOCTOR]
    environment = platform.environment | home | {"PYTHONPATH": str(platform.folder)}
    done = subprocess.run(command, cwd=platform.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}


def not_ok(found: tuple[int, dict[str, dict[str, str]]]) -> set[str]:
    return {what for what, finding in found[1].items() if finding["state"] != "ok"}


def test_a_platform_that_runs_is_well(platform: Any) -> None:
    shown = platform.inside("fmnist", *platform.train_few(1)[1:])
    assert shown.returncode == 0
    until = time.monotonic() + 60  # TensorBoard looks for new runs every few seconds, the service for a champion
    while not_ok(found := doctor(platform)) - MAY_BE_OFF and time.monotonic() < until:
        time.sleep(2)
    code, findings = found
    assert code == 0, findings
    assert {"docker", "disk", "memory", "database", "artifact store", "TensorBoard", "service"} < set(findings)
    assert {"python", "packages", "clock", "secrets", "leftovers", "registry"} < set(findings)
    assert {what for what in findings if what.startswith("container")} == {
        f"container {service}" for service in ("api", "mlflow", "notebook", "postgres", "tensorboard")
    }
    assert not not_ok(found) - MAY_BE_OFF, findings
    assert findings["database"]["found"] == platform.mlflow.replace("localhost", "127.0.0.1")


def test_what_is_not_well_is_named_with_its_remedy(platform: Any) -> None:
    platform.compose("stop", "mlflow")
    try:
        code, findings = doctor(platform)
    finally:
        platform.compose("start", "mlflow")
        platform.wait_until_healthy("mlflow")
    assert code == 1, findings
    bad = {what: finding for what, finding in findings.items() if finding["state"] == "bad"}
    assert set(bad) == {"container mlflow", "database", "artifact store"}
    assert findings["registry"]["state"] == "warning"
    assert findings["service"]["state"] in ("ok", "warning")  # it goes on, and may not have looked since
    assert "make start" in bad["container mlflow"]["remedy"] and all(finding["remedy"] for finding in bad.values())
