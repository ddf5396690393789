"""A backup set of the platform, and whether it can be restored, as far as that needs no Docker."""

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fmnist.errors import Failure, UserError
from fmnist.files import held_lock
from fmnist.ops import restore
from fmnist.ops.sets import Manifest, verified, write_manifest

PLATFORM = Path(__file__).parents[1] / "platform"
ABOUT: dict[str, Any] = {"made": "2026-01-01T00:00:00+00:00", "home": "/x/var", "versions": {"mlflow": "3.17.2"}}
COUNTS = {"runs": 3}


@pytest.fixture
def made(script: Any, tmp_path: Path) -> Path:
    """A set of a platform, without a platform."""
    root = tmp_path / "root"
    (root / "empty").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    (root / "file").chmod(0o640)
    (root / "link").symlink_to("/nowhere/else")
    (root / "run" / "lock").parent.mkdir()
    for name in ("lock", "shipping.lock", ".journal.tmp", "shipping.json"):
        (root / "run" / name).write_text(name)
    folder = tmp_path / "set"
    folder.mkdir()
    files = {"runs.tar": script("sets").pack(root, folder / "runs.tar", {root / "run" / "shipping.json": b"{}"}.get)}
    script("sets").write_manifest(folder, {**ABOUT, "counts": COUNTS, "files": files, "platform": {"schema": "x"}})
    return folder


def test_both_modes_read_the_set_and_each_restores_its_own(made: Path, script: Any, tmp_path: Path) -> None:
    assert verified(made).counts == script("sets").verified(made)["counts"] == COUNTS
    with pytest.raises(UserError, match=r"is a set of the platform.*; put it back there: make restore FROM="):
        restore.restore(made, tmp_path / "home", "fashion-mnist")
    assert not (tmp_path / "home").exists()
    (tmp_path / "embedded").mkdir()
    write_manifest(tmp_path / "embedded", Manifest(**ABOUT, counts=COUNTS))
    with pytest.raises(script("engine").Trouble, match=r"is a set of the embedded mode; put it back with: fmnist"):
        script("sets").verified(tmp_path / "embedded")


@pytest.mark.parametrize("name", ["runs.tar", "manifest.json"])
def test_both_find_a_changed_byte(made: Path, script: Any, name: str) -> None:
    content = bytearray((made / name).read_bytes())
    for place in range(0, len(content), max(1, len(content) // 20)):
        content[place] ^= 1
        (made / name).write_bytes(content)
        with pytest.raises(Failure, match="damaged"):
            verified(made)
        with pytest.raises(script("engine").Trouble, match="damaged"):
            script("sets").verified(made)
        content[place] ^= 1


def test_what_is_no_set_is_told(made: Path, script: Any, tmp_path: Path) -> None:
    (made / "runs.tar").unlink()
    with pytest.raises(script("engine").Trouble, match=r"runs.tar: is missing from its backup set; use another"):
        script("sets").verified(made)
    with pytest.raises(script("engine").Trouble, match=r"is no backup set .*; name one of make backup"):
        script("sets").verified(tmp_path)


def test_a_folder_comes_back_as_it_was(made: Path, script: Any, tmp_path: Path) -> None:
    new = tmp_path / "new"
    script("sets").unpack(made / "runs.tar", new)
    found = {str(path.relative_to(new)) for path in new.rglob("*")}
    assert found == {"empty", "file", "link", "run", "run/shipping.json"}
    assert (new / "file").read_bytes() == b"content"
    assert (new / "file").stat().st_mode & 0o777 == 0o640
    assert (new / "file").stat().st_mtime == int((tmp_path / "root" / "file").stat().st_mtime)
    assert (new / "link").readlink() == Path("/nowhere/else")
    assert (new / "run" / "shipping.json").read_text() == "{}"


def test_a_link_to_what_the_set_would_not_have_is_told(script: Any, tmp_path: Path) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "latest").symlink_to("one")
    script("sets").check_links(tmp_path / "runs")
    for target in (tmp_path / "moved", "../moved", tmp_path / "runs" / "one"):
        (tmp_path / "runs" / "two").symlink_to(target)
        with pytest.raises(
            script("engine").Trouble, match=r"runs/two: is a link out of .*; put the thing itself there"
        ):
            script("sets").check_links(tmp_path / "runs")
        (tmp_path / "runs" / "two").unlink()


def test_what_leads_out_of_an_archive_is_refused(script: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for names in (["../outside/x"], ["/outside/x"], ["a/../../outside/x"]):
        with tarfile.open(tmp_path / "bad.tar", "w") as tar:
            for name in names:
                tar.addfile(tarfile.TarInfo(name))
        with pytest.raises(script("engine").Trouble, match="which leads out of it; use another set"):
            script("sets").unpack(tmp_path / "bad.tar", tmp_path / "new")
        (tmp_path / "new").rmdir()
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("link/x"))
    with pytest.raises(OSError, match="link"):  # nothing is written through it
        script("sets").unpack(tmp_path / "bad.tar", tmp_path / "new")
    assert list(outside.iterdir()) == []


def test_no_link_is_made_through_another(script: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for name, target in (("a", outside), ("a/b", "/x")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, str(target)
            tar.addfile(link)
    with pytest.raises(OSError, match="a/b"):
        script("sets").unpack(tmp_path / "bad.tar", tmp_path / "new")
    assert list(outside.iterdir()) == []


def test_a_set_changes_no_file_that_it_links_to(script: Any, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("/old/var/x")
    for run in ("runs/a", "sweeps"):
        (tmp_path / run).mkdir(parents=True)
    (tmp_path / "runs" / "a" / "shipping.json").symlink_to(victim)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "shipping.json").write_text("/old/var/x")
    (tmp_path / "sweeps" / "b").symlink_to(tmp_path / "real")
    restoring = script("restoring")
    restoring.settings = dict
    restoring._move_on_paper(tmp_path, {"home": "/old/var", "platform": {"mlflow_port": "5000"}})
    assert victim.read_text() == (tmp_path / "real" / "shipping.json").read_text() == "/old/var/x"


def test_what_is_being_trained_is_not_replaced(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restoring = script("restoring")
    for kind, name in (("run", "runs"), ("sweep", "sweeps")):
        monkeypatch.setitem(restoring.FOLDERS, name, tmp_path / name)
        (tmp_path / name / "1").mkdir(parents=True)
        told = pytest.raises(script("engine").Trouble, match=f"{kind} 1: is being trained; wait for it, or stop it")
        with held_lock(tmp_path / name / "1" / "lock", "me"), told:
            restoring.check_untrained()
    restoring.check_untrained()


@pytest.mark.parametrize(
    ("place", "version", "told"),
    [
        ("s3://bucket", "3.9.0", "ARTIFACTS_DESTINATION /artifacts: the set's is s3://bucket; make it that in .env"),
        ("/artifacts", "3.10.1", "MLflow 3.10.1: made the set's database, here is 3.9.2; make build with that one"),
    ],
)
def test_a_set_that_does_not_fit_is_refused(
    script: Any, monkeypatch: pytest.MonkeyPatch, place: str, version: str, told: str
) -> None:
    restoring = script("restoring")
    monkeypatch.setattr(restoring.artifacts, "settings", dict)
    monkeypatch.setattr(restoring, "image_of", str)
    monkeypatch.setattr(restoring, "mlflow_version", lambda image: "3.9.2")
    with pytest.raises(script("engine").Trouble, match=re.escape(told)):
        restoring._check_fits({"platform": {"artifacts": place}, "versions": {"mlflow": version}})


def test_a_disk_that_cannot_hold_it_is_told_first(script: Any) -> None:
    script("sets").check_room("/here", 10**8, 10**7)
    with pytest.raises(script("engine").Trouble, match=r"/here: has 100 MB free, 167 are needed; make room"):
        script("sets").check_room("/here", 10**8, 10**8)


def test_runs_of_the_hosts_venv_are_known_as_sent_under_the_new_address(script: Any, tmp_path: Path) -> None:
    restoring = script("restoring")
    lanes = ["mlflow http://localhost:5100", "tensorboard /x/var/tensorboard", "mlflow http://mlflow:5000"]
    for name in ("runs", "sweeps"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "shipping.json").write_text(json.dumps({lane: {"sent": 1} for lane in lanes}))
    restoring.settings = dict
    restoring._move_on_paper(tmp_path, {"home": "/x/var", "platform": {"mlflow_port": "5100"}})
    logs = f"tensorboard {PLATFORM.parent / 'var' / 'tensorboard'}"
    for name in ("runs", "sweeps"):
        notes = json.loads((tmp_path / name / "1" / "shipping.json").read_text())
        assert list(notes) == ["mlflow http://localhost:5000", logs, lanes[2]]
