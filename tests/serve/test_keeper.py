import json
from pathlib import Path
from typing import Any

import pytest

from fmnist.files import sha256_of
from fmnist.serve import keeper as module
from fmnist.serve.keeper import Keeper

from .conftest import ListSource


def version(keeper: Keeper) -> str | None:
    return keeper.model and keeper.model.version


def test_a_moved_alias_is_taken_over_and_counted(source: ListSource) -> None:
    keeper = Keeper(source, None)
    keeper.look()
    assert (version(keeper), keeper.swaps) == ("1", 0)
    first = keeper.model
    keeper.look()
    assert keeper.model is first  # nothing is loaded again
    source.now = 1
    keeper.look()
    assert (version(keeper), keeper.swaps) == ("2", 1)


def test_before_there_is_a_champion_it_says_what_to_do(source: ListSource) -> None:
    source.now = 9
    keeper = Keeper(source, None, missing="no champion yet; train one")
    assert keeper.absence == "the model is being loaded; try again in a second"
    keeper.look()
    keeper.looked = True
    assert keeper.model is None
    assert keeper.absence == "no champion yet; train one"
    source.now = 0
    keeper.look()
    assert version(keeper) == "1"


def test_a_champion_that_is_taken_away_goes_on_answering_and_it_is_said(source: ListSource) -> None:
    keeper = Keeper(source, None)
    keeper.look()
    source.now = 9
    keeper.look()
    assert version(keeper) == "1"
    assert keeper.trouble == "the registry names no champion any more"


def test_while_the_registry_is_away_the_model_goes_on_and_it_is_said(source: ListSource) -> None:
    keeper = Keeper(source, None)
    keeper.look()
    source.away = True
    keeper.look()
    assert version(keeper) == "1"
    assert keeper.trouble == "MLflow at http://x: does not answer; start it"
    source.away = False
    keeper.look()
    assert keeper.trouble is None


@pytest.fixture
def bad(models: list[Path], golden: list[Any], tmp_path: Path) -> tuple[ListSource, Path]:
    """A registry whose second version can be spoilt."""
    second = tmp_path / "second.onnx"
    second.write_bytes(models[1].read_bytes())
    return ListSource(models[0], second, golden=golden), second


def refused(source: ListSource) -> Keeper:
    keeper = Keeper(source, None)
    keeper.look()
    source.now = 1
    keeper.look()
    assert version(keeper) == "1"
    assert keeper.refusals == 1
    assert keeper.refusal is not None
    assert keeper.refusal.version == "2"
    return keeper


def test_a_file_with_a_changed_byte_is_refused(bad: tuple[ListSource, Path]) -> None:
    source, path = bad
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    keeper = refused(source)
    assert keeper.refusal is not None
    assert "version 2: its file has the SHA-256" in keeper.refusal.reason


def test_a_model_that_answers_otherwise_than_on_record_is_refused(bad: tuple[ListSource, Path]) -> None:
    source, path = bad
    path.write_bytes(source.paths[0].read_bytes())
    source.sha256[1] = sha256_of(path)
    keeper = refused(source)
    assert keeper.refusal is not None
    assert "answers its golden batch otherwise than when it was registered" in keeper.refusal.reason


@pytest.mark.parametrize("spoilt", [None, {}, {"images": ["x"], "probabilities": [[1]]}, 3])
def test_a_golden_batch_that_is_gone_or_damaged_refuses_the_model(bad: tuple[ListSource, Path], spoilt: Any) -> None:
    source, _ = bad
    assert source.golden is not None
    source.golden[1] = spoilt
    keeper = refused(source)
    assert keeper.refusal is not None
    assert "its golden batch (report/golden.json of its run) is gone or damaged" in keeper.refusal.reason


def test_what_is_no_model_and_what_fmnist_did_not_register_are_refused(bad: tuple[ListSource, Path]) -> None:
    source, path = bad
    path.write_bytes(b"no model")
    source.sha256[1] = sha256_of(path)
    keeper = refused(source)
    assert keeper.refusal is not None
    assert "is no ONNX model" in keeper.refusal.reason
    source.now, source.sha256[1] = 0, ""
    assert "has no SHA-256 on record" in str(refused(source).refusal)


def test_a_refused_model_is_tried_again_later_and_mended_it_answers(
    bad: tuple[ListSource, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path = bad
    content = path.read_bytes()
    path.write_bytes(b"no model")
    keeper = refused(source)
    path.write_bytes(content)
    keeper.look()
    assert version(keeper) == "1"  # not yet
    monkeypatch.setattr(module, "REFUSED_SECONDS", 0)
    keeper.look()
    assert (version(keeper), keeper.refusal) == ("2", None)


def test_a_refusal_is_forgotten_once_the_alias_is_moved_back(bad: tuple[ListSource, Path]) -> None:
    source, path = bad
    path.write_bytes(b"no model")
    keeper = refused(source)
    source.now = 0
    keeper.look()
    assert keeper.refusal is None


def test_across_a_restart_without_the_registry_the_kept_model_answers(
    source: ListSource, golden: list[Any], tmp_path: Path
) -> None:
    source.golden = golden
    cache = tmp_path / "cache"
    first = Keeper(source, cache)
    first.look()
    source.now = 1
    first.look()
    assert len(list(cache.glob("*.onnx.sealed"))) == 1  # the old one is not kept
    source.away = True
    again = Keeper(source, cache)
    again.look()
    assert version(again) == "2"
    assert again.from_cache
    assert again.trouble
    source.away = False
    again.look()
    assert (version(again), again.from_cache) == ("2", False)
    source.now = 0
    again.look()
    assert (version(again), again.from_cache) == ("1", False)


def test_at_a_start_a_refused_model_leaves_the_kept_one_to_answer(bad: tuple[ListSource, Path], tmp_path: Path) -> None:
    source, path = bad
    Keeper(source, tmp_path / "cache").look()
    source.now = 1
    path.write_bytes(b"no model")
    again = Keeper(source, tmp_path / "cache")
    again.look()
    assert (version(again), again.from_cache, again.trouble) == ("1", True, None)
    assert again.refusal is not None and again.refusal.version == "2"


def test_at_a_start_an_unforeseen_error_leaves_the_kept_one_to_answer(source: ListSource, tmp_path: Path) -> None:
    Keeper(source, tmp_path).look()
    source.find = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    again = Keeper(source, tmp_path)
    again.look()
    assert (version(again), again.from_cache) == ("1", True)
    assert again.trouble == "looking for a new model failed (ZeroDivisionError: division by zero); see the log"


@pytest.mark.parametrize("which", ["*.onnx.sealed", "last.json"])
def test_a_kept_model_that_was_damaged_is_not_used(source: ListSource, tmp_path: Path, which: str) -> None:
    Keeper(source, tmp_path).look()
    (path,) = tmp_path.glob(which)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    source.away = True
    keeper = Keeper(source, tmp_path)
    keeper.look()
    assert keeper.model is None


def test_a_cache_that_cannot_be_written_is_no_reason_not_to_answer(source: ListSource, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keeper = Keeper(source, tmp_path / "file")
    keeper.look()
    assert version(keeper) == "1"


def test_an_unforeseen_error_does_not_end_the_looking(source: ListSource, caplog: pytest.LogCaptureFixture) -> None:
    keeper = Keeper(source, None, interval=0.01)
    source.find = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    keeper.start()
    while not keeper.looked:
        pass
    del source.find
    while keeper.model is None:
        pass
    keeper.stop()
    assert "looking for a new model failed" in caplog.text


def test_what_is_kept_is_plain_json(source: ListSource, tmp_path: Path) -> None:
    Keeper(source, tmp_path).look()
    _, _, content = (tmp_path / "last.json").read_bytes().partition(b"\n")
    assert json.loads(content)["release"]["version"] == "1"
