"""A set of which one byte has changed is refused; one that was made while a training logged goes on elsewhere."""

import random
import shutil
from pathlib import Path

import pytest

from fmnist.files import sha256_of

from .conftest import RESUME, TRAIN, Place, Warm

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future


@pytest.fixture(scope="session")
def backup_set(tracked: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    tracked.do("backup", "--to", str(folder))
    (made,) = folder.iterdir()
    return made


def digests(home: Path) -> dict[Path, str]:
    return {path: sha256_of(path) for path in home.rglob("*") if path.is_file() and not path.match("command*/*")}


@pytest.mark.fault("restore of a set with one byte changed", 3, 20)
def test_a_changed_set_is_refused(tracked: Place, backup_set: Path, tmp_path: Path, warm: Warm, seed: int) -> None:
    chance, chosen = random.Random(seed), Path(shutil.copytree(backup_set, tmp_path / "set"))
    place = Place(Path(shutil.copytree(tracked.home, tmp_path / "home")), warm)
    spoilt = chance.choice(sorted(chosen.iterdir()))
    content = bytearray(spoilt.read_bytes())
    content[chance.randrange(len(content))] ^= chance.randint(1, 255)
    spoilt.write_bytes(content)
    before = digests(place.home)
    code, _, err = place.run("restore", str(chosen), "--yes")
    assert code == 1
    assert err.splitlines()[-1].startswith(f"fmnist: {spoilt}: is damaged: ")
    assert digests(place.home) == before


@pytest.mark.parametrize(("call", "number"), [("pack", 1), ("pack", 3), ("write_manifest", 1)])  # of 4 folders
def test_a_backup_that_is_killed_leaves_nothing_that_looks_like_a_set(
    tracked: Place, tmp_path: Path, call: str, number: int
) -> None:
    sets = tmp_path / "sets"
    fault = {"call": f"fmnist.ops.backup:{call}", "number": number}
    assert tracked.run("backup", "--to", str(sets), fault=fault)[0] == -9
    assert not list(sets.glob("fmnist-*")) and not list(sets.rglob("manifest.json"))
    tracked.do("backup", "--to", str(sets))
    (made,) = sets.glob("fmnist-*")
    tracked.do("backup", "--verify", str(made))


def test_a_set_made_while_a_training_logs_goes_on_elsewhere(
    place: Place, tmp_path: Path, warm: Warm, undisturbed: str
) -> None:
    training = place.start(*TRAIN)
    place.wait_for("runs/*/checkpoint")
    place.do("backup", "--to", str(tmp_path / "sets"))
    assert training.communicate()[0] == 0
    (made,) = (tmp_path / "sets").iterdir()
    other = Place(tmp_path / "other", warm)
    for command in (("restore", str(made), "--yes"), RESUME, ("sync",)):
        other.do(*command)
    assert other.weights == undisturbed
    other.check_tracked_once()
