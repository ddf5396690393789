"""What `fmnist doctor --fix` does: to real folders, a real journal, a real MLflow."""

import json
import os
import shutil
from pathlib import Path

import pytest

from fmnist.ops import mending
from fmnist.ops.finding import Finding
from fmnist.run import Run
from fmnist.tracking.shipper import State
from fmnist.workspace import open_workspace

from ..conftest import Command

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("any_machine")]


def states(out: str) -> dict[str, str]:
    return {finding["what"]: finding["state"] for finding in json.loads(out)["findings"]}


def test_what_is_well_is_left_alone(fmnist: Command, home: Path) -> None:
    code, out, err = fmnist("doctor", "--fix", "--json")
    assert (code, json.loads(out)["mended"], err) == (0, [], "")
    assert "mended" not in json.loads(fmnist("doctor", "--json")[1])


def test_modes_and_leftovers_are_mended_and_told(fmnist: Command, home: Path) -> None:
    token, left = home / "jupyter" / "token", home / "data" / ".scratch-old"
    for path in (token.parent, left):
        path.mkdir(parents=True)
    token.write_text("token")
    token.chmod(0o644)
    (left / "half").touch()
    os.utime(left, (0, 0))
    code, out, err = fmnist("doctor", "--json")
    assert (code, states(out)["secrets"], states(out)["leftovers"]) == (1, "bad", "warning")
    assert token.exists() and left.exists() and err == ""
    code, out, err = fmnist("doctor", "--fix", "--json")
    assert (code, states(out)["secrets"], states(out)["leftovers"]) == (0, "off", "ok")
    assert not token.exists() and not left.exists()
    told = [f"{token}: removed; the next fmnist up makes another", f"{left}: removed"]
    assert json.loads(out)["mended"] == told and all(line in err for line in told)


def test_records_that_were_left_are_sent(
    fmnist: Command, home: Path, journalled: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMNIST_TRACKING", "yes")
    run = Run(Path(shutil.copytree(journalled.folder, home / "runs" / journalled.id)))
    mlflow, _ = open_workspace().destinations.sinks(run)
    State(run).note(mlflow, 5, None, ended=True)
    assert states(fmnist("doctor", "--json")[1])["records"] == "warning"
    code, out, err = fmnist("doctor", "--fix", "--json")
    assert (code, states(out)["records"]) == (0, "ok")
    assert f"run {run.id}: all is sent" in err
    assert list((home / "tensorboard" / run.id).glob("events.*"))
    copy = shutil.copytree(run.folder, home / "runs" / "20990101-000000-00000")  # of which MLflow knows nothing
    assert states(fmnist("doctor", "--json")[1])["records"] == "warning"
    _, _, err = fmnist("doctor", "--fix", "--json")
    assert f"{copy}: holds the run {run.id}; give the folder that name, then sync" in err
    assert not (home / "tensorboard" / copy.name).exists()


def test_what_cannot_be_mended_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(patient: object) -> list[str]:
        raise PermissionError(13, "Permission denied", "secrets")

    monkeypatch.setattr(mending, "_secrets", broken)
    (told,) = mending.mend(None, [Finding("secrets", "bad", ""), Finding("leftovers", "ok", "")])  # type: ignore[arg-type]
    assert told.startswith("secrets: not mended (") and "Permission denied" in told


def test_nothing_is_sent_to_a_database_that_is_not_well() -> None:
    findings = [Finding("records", "warning", ""), Finding("database", "bad", "an older schema")]
    assert list(mending.mend(None, findings)) == []  # type: ignore[arg-type]
