"""What is garbage of runs; what must not be is there afterwards, byte for byte. In a real MLflow."""

import json
import shutil
from collections.abc import Callable

import pytest

from fmnist.errors import Failure
from fmnist.files import held_lock
from fmnist.ops import garbage
from fmnist.ops.garbage import CHECKPOINTS, DELETED, LOST, REGISTERED, SWEEP_HERE, clear
from fmnist.run import Run

from ..sweeps import a_sweep
from .places import ORPHAN, RUNS, Place, digests, files_of, litter

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future

Command = Callable[..., tuple[int, str, str]]


def test_where_all_is_registered_there_is_nothing_to_free(place: Place) -> None:
    found = place.find()
    assert found.pieces == []
    assert found.trouble is None
    assert found.kept == [f"{CHECKPOINTS}, 3: {REGISTERED}"]


def test_a_deleted_run_goes_for_good_with_all_that_is_its_own_and_the_others_stay(place: Place) -> None:
    place.delete_version(2)
    place.delete_run(RUNS[1])
    own = files_of(place, RUNS[1])
    others = digests(*files_of(place, RUNS[0]), *files_of(place, RUNS[2]))
    assert len(own) == 4  # its folder, its log, its artifacts, its model
    assert all(any(folder.rglob("*")) for folder in own)

    (piece,) = place.find().pieces
    assert (piece.kind, piece.name) == (DELETED, RUNS[1])
    assert piece.size == sum(file.stat().st_size for folder in own for file in folder.rglob("*") if file.is_file())
    assert all(folder.exists() for folder in own)  # to look changes nothing

    assert place.clear() == [RUNS[1]]
    assert not any(folder.exists() for folder in own)
    assert place.mlflow_run(RUNS[1]) is None
    assert len(place.client.search_logged_models(["1"])) == 2
    assert digests(*files_of(place, RUNS[0]), *files_of(place, RUNS[2])) == others
    assert place.find().pieces == []
    assert not list(place.home.rglob(".scratch-*"))


def test_a_deleted_run_that_a_version_comes_from_is_not_touched(place: Place) -> None:
    place.delete_run(RUNS[0])
    before = digests(*files_of(place, RUNS[0]))
    assert f"{DELETED}, 1: {REGISTERED}" in place.find().kept
    assert place.clear() == []
    assert digests(*files_of(place, RUNS[0])) == before


def test_a_deleted_sweep_whose_folder_is_here_stays_for_it_would_be_sent_again(place: Place) -> None:
    sweep, _ = a_sweep(place.home / "sweeps")
    trial = f"{sweep.id}-001"
    for run_id in (sweep.id, trial):
        place.client.create_run("1", tags={"fmnist.run_id": run_id})
        place.delete_run(run_id)
    assert f"{DELETED}, 2: {SWEEP_HERE}" in place.find().kept
    assert place.clear() == []
    shutil.rmtree(sweep.folder)
    assert sorted(place.clear()) == [sweep.id, trial]
    assert place.mlflow_run(sweep.id) is place.mlflow_run(trial) is None


def test_what_was_deleted_a_day_ago_stays(place: Place) -> None:
    place.delete_version(2)
    place.delete_run(RUNS[1], days=1)
    assert place.named(DELETED) == []
    place.log(RUNS[1]).rename(place.log(ORPHAN))
    shutil.rmtree(place.run(RUNS[1]).folder)
    place.log(ORPHAN).rename(place.log(RUNS[1]))
    assert place.clear() == []  # its log has a run in MLflow still


def test_a_run_that_is_there_once_more_keeps_its_folder_and_its_log(place: Place) -> None:
    """As after `sync --again`: MLflow has it twice, once deleted."""
    place.delete_version(2)
    first = place.mlflow_run(RUNS[1])
    place.delete_run(RUNS[1])
    place.client.create_run("1", tags={"fmnist.run_id": RUNS[1]})
    before = digests(place.run(RUNS[1]).folder, place.log(RUNS[1]))
    assert place.named(DELETED) == [RUNS[1]]
    (piece,) = [piece for piece in place.find().pieces if piece.kind == DELETED]
    piece.delete()
    assert digests(place.run(RUNS[1]).folder, place.log(RUNS[1])) == before
    assert place.mlflow_run(RUNS[1]).info.run_id != first.info.run_id


def not_finished(run: Run) -> None:
    (run.folder / "result.json").unlink()


def without_model(run: Run) -> None:
    run.model.unlink()


def not_sent(run: Run) -> None:
    run.shipping.write_text(run.shipping.read_text().replace("true", "false"))


def not_tracked(run: Run) -> None:
    run.shipping.unlink()


def without_end(run: Run) -> None:
    run.journal.write_bytes(b"".join(run.journal.read_bytes().splitlines(keepends=True)[:-1]))


def damaged(run: Run) -> None:
    run.journal.write_bytes(b"?\n" + run.journal.read_bytes())


def sent_elsewhere(run: Run) -> None:
    lanes = json.loads(run.shipping.read_text())
    run.shipping.write_text(json.dumps(lanes | {"mlflow http://other:5000": {"ended": True}}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (not_finished, "it is not finished here"),
        (without_model, "it is not finished here"),
        (not_sent, "it is not sent whole"),
        (not_tracked, "it is not sent whole"),
        (without_end, "it is not sent whole"),
        (damaged, "its journal is damaged"),
        (sent_elsewhere, "it was sent to mlflow http://other:5000 too"),
    ],
)
def test_a_run_here_that_is_needed_keeps_all_it_has(place: Place, change: Callable[[Run], None], why: str) -> None:
    for deletes_run in (False, True):  # its checkpoint first, then all of it
        if deletes_run:
            place.delete_run(RUNS[1])
        else:
            place.delete_version(2)
            change(place.run(RUNS[1]))
            place.age()
        assert place.find().pieces == []
    assert any(told.startswith(f"{DELETED}, 1: {why}") for told in place.find().kept)


@pytest.mark.parametrize("name", ["lock", "shipping.lock"])
def test_a_run_in_somebodys_hands_is_left(place: Place, name: str) -> None:
    place.delete_version(2)
    place.delete_run(RUNS[1])
    found = place.find()
    assert found.pieces
    before = digests(place.home / "artifacts")
    with held_lock(place.run(RUNS[1]).folder / name, "another"):
        assert place.find().pieces == []
        gone, (failure,) = clear(found.pieces)  # it was free when it was found
    assert gone == []
    assert "another" in str(failure)
    assert digests(place.home / "artifacts") == before


def test_a_checkpoint_goes_beside_a_sound_model_and_the_run_is_as_before(
    place: Place, fmnist: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.delete_version(2)
    run = place.run(RUNS[1])
    before = digests(run.folder)
    assert place.named(CHECKPOINTS) == [RUNS[1]]
    assert place.clear() == [RUNS[1]]
    assert set(before) - set(digests(run.folder)) == {run.checkpoint}
    monkeypatch.setenv("FMNIST_TRACKING", "yes")
    monkeypatch.setenv("FMNIST_SYNC_WAIT", "0")
    code, out, err = fmnist("train", "--resume", run.id, "--json")
    assert (code, json.loads(out)["run_id"]) == (0, run.id), err
    assert fmnist("evaluate", run.id, "--json")[0] == 0


def test_a_checkpoint_stays_beside_a_damaged_model_from_which_it_could_be_mended(place: Place) -> None:
    place.delete_version(2)
    model = place.run(RUNS[1]).model
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    place.age()
    assert place.find().pieces == []


def test_a_finished_run_with_neither_model_nor_checkpoint_says_so(place: Place, fmnist: Command) -> None:
    run = place.run(RUNS[1])
    run.model.unlink()
    run.checkpoint.unlink()
    code, _, err = fmnist("train", "--resume", run.id)
    assert code == 1
    assert "model.onnx: is gone, and so is the checkpoint it was made from; restore one of them, or train anew" in err


def test_a_run_that_mlflow_has_lost_is_told_and_stays(place: Place) -> None:
    place.delete_version(2)
    run = place.mlflow_run(RUNS[1]).info.run_id
    place.client.delete_run(run)
    place.client._tracking_client.store._hard_delete_run(run)
    found = place.find()
    assert found.pieces == []
    assert any(f"run folders, 1: {LOST}; fmnist sync --again {RUNS[1]}" in told for told in found.kept)


def test_a_kill_at_any_moment_leaves_no_half_and_the_next_time_finds_the_rest(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.delete_version(2)
    place.delete_run(RUNS[1])

    def killed(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    for moment in ((garbage.shutil, "rmtree"), (garbage.Ledger, "forget")):
        with monkeypatch.context() as patch:
            patch.setattr(*moment, killed)
            with pytest.raises(KeyboardInterrupt):
                clear(place.find().pieces)
        assert place.named(DELETED) == [RUNS[1]]
        assert place.mlflow_run(RUNS[1]) is not None
    assert place.clear() == [RUNS[1]]


def test_what_cannot_be_deleted_is_told_and_the_rest_goes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    litter(place)
    place.age()
    pieces = place.find().pieces

    def refused() -> None:
        raise PermissionError(13, "Permission denied")

    pieces[0] = pieces[0]._replace(delete=refused)
    gone, (failure,) = clear(pieces)
    assert len(gone) == len(pieces) - 1
    assert isinstance(failure, Failure)
    assert str(failure) == f"{pieces[0].name}: cannot be deleted (Permission denied); mend that"
