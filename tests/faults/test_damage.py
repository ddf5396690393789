"""Files with flipped bits, or cut short: noticed by their hash and named, never loaded."""

import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fmnist.checkpoint import read_checkpoint
from fmnist.data import cache, find_data
from fmnist.errors import Failure
from fmnist.files import sha256_of
from fmnist.registry import Registry
from fmnist.run import Run
from fmnist.serve.keeper import Keeper
from fmnist.serve.releases import Absent, FileSource, Release
from fmnist.settings import Settings
from fmnist.tracking.journal import Journal
from fmnist.workspace import Workspace

from ..helpers import DATA
from .conftest import Place

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future


def damage(path: Path, chance: random.Random) -> None:
    """Flip some bits of a file, or cut it short."""
    content = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        del content[chance.randrange(len(content)) :]
    else:
        for bit in chance.sample(range(8 * len(content)), chance.choice([1, 2, 8])):
            content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.fixture
def run(tracked: Place, tmp_path: Path) -> Run:
    """A copy of a finished one."""
    return Run(Path(shutil.copytree(tracked.the_run.folder, tmp_path / tracked.the_run.id)))


@pytest.mark.fault("checkpoint with flipped bits or cut short", 5, 50)
def test_a_damaged_checkpoint(run: Run, seed: int) -> None:
    damage(run.checkpoint, random.Random(seed))
    with pytest.raises(Failure) as told:
        read_checkpoint(run.checkpoint)
    assert str(told.value).startswith(f"{run.checkpoint}: is damaged: its SHA-256 is not the one it was written with")


@pytest.mark.fault("journal with flipped bits or cut short", 5, 50)
def test_a_damaged_journal(run: Run, seed: int) -> None:
    """A last line without its end is what a crash leaves: it does not count, and is written again."""
    journal = Journal(run.journal)
    whole = journal.read()
    damage(run.journal, random.Random(seed))
    ends = run.journal.read_bytes()[-1:] == b"\n"
    try:
        left = journal.read()
    except Failure as told:
        assert str(told).startswith(f"{run.journal}: is damaged in line ")
        with pytest.raises(Failure, match="is damaged in line"):
            journal.add_missing(whole)
        run.journal.unlink()  # as the sentence says
    else:
        assert left == whole[: len(left)] and len(left) < len(whole)
        assert not ends or len(left) == run.journal.read_bytes().count(b"\n")
    journal.add_missing(whole)
    assert journal.read() == whole


@pytest.mark.fault("ONNX file with flipped bits or cut short: run's, fetched, in MLflow", 6, 50)
def test_a_damaged_model(run: Run, tracked: Place, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    registry = Registry(f"sqlite:///{tracked.home / 'mlflow.db'}", "fashion-mnist")
    (version,) = registry.versions()
    kept = registry.fetch(version, tmp_path / "models")
    if seed % 3 == 0:
        damage(run.model, chance)
        with pytest.raises(Failure) as told:
            Workspace(Settings(home=tmp_path)).find_model(run)
        assert str(told.value).startswith(f"{run.model}: is damaged: its SHA-256 is not the one its run ended with")
    elif seed % 3 == 1:
        damage(kept, chance)
        assert sha256_of(registry.fetch(version, tmp_path / "models")) == version.sha256
    else:
        (stored,) = (tracked.home / "artifacts").rglob("model.onnx")
        content = stored.read_bytes()
        try:
            damage(stored, chance)
            with pytest.raises(Failure) as told:
                registry.fetch(version, tmp_path / "empty")
        finally:
            stored.write_bytes(content)
        assert str(told.value).startswith("fashion-mnist version 1: its file in MLflow is not the one")
        assert not list((tmp_path / "empty").glob("*.onnx"))


@pytest.mark.fault("data cache with flipped bits or cut short", 5, 25)
def test_a_damaged_data_cache(tracked: Place, tmp_path: Path, seed: int) -> None:
    chance, notices = random.Random(seed), list[str]()
    (kept,) = (tracked.home / "data").iterdir()
    entry = Path(shutil.copytree(kept, tmp_path / "data" / kept.name))
    sound = cache.load(entry)
    damage(chance.choice(sorted(entry.iterdir())), chance)
    with pytest.raises(cache.DamagedCacheError, match=str(entry)):
        cache.load(entry)
    given = {"required": True, "download": False, "connect_timeout": 1.0}
    found = find_data(DATA, tmp_path / "data", notice=notices.append, **given)  # type: ignore[arg-type]
    assert found.digest == sound.digest
    assert len(notices) == 1 and str(entry) in notices[0] and "is damaged" in notices[0]
    assert cache.load(entry).digest == sound.digest  # made anew


class Away:
    """A registry that does not answer."""

    def find(self) -> Release:
        raise Absent("MLflow", "does not answer")

    fetch: Callable[..., Path]
    report: Callable[..., None]


@pytest.mark.fault("service's kept model with flipped bits or cut short", 4, 25)
def test_a_damaged_model_of_the_service(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int) -> None:
    chance, kept = random.Random(seed), tmp_path / "kept"
    Keeper(FileSource(run.model), kept).look()
    spoilt = chance.choice(sorted(kept.iterdir()))
    damage(spoilt, chance)
    after_restart = Keeper(Away(), kept)
    with caplog.at_level(logging.ERROR):
        after_restart.look()
    assert after_restart.model is None
    (told,) = [record for record in caplog.records if record.message == "the model that was kept can't be used"]
    assert str(spoilt) in told.reason  # type: ignore[attr-defined]
