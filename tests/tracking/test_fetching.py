import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fmnist import train
from fmnist.checkpoint import read_checkpoint, write_checkpoint
from fmnist.errors import Failure, UserError
from fmnist.progress import Silent
from fmnist.run import Run
from fmnist.settings import Settings
from fmnist.tracking.fetching import HOLDER_TAG
from fmnist.tracking.journal import Journal
from fmnist.tracking.mlflow_sink import MlflowSink
from fmnist.workspace import Workspace

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future


def sent(journalled: Run, home: Path, workers: int) -> Run:
    """A run of which MLflow, in `home`, has the first two of three epochs, done by so many workers."""
    run = Run(Path(shutil.copytree(journalled.folder, home / "elsewhere" / journalled.id)))
    for name in ("result.json", "model.onnx", "journal.jsonl"):
        (run.folder / name).unlink()
    checkpoint = read_checkpoint(run.checkpoint)
    checkpoint.epoch, checkpoint.finished, checkpoint.records = 2, False, checkpoint.records[:2]
    write_checkpoint(run.checkpoint, checkpoint)
    artifacts = home / "artifacts"
    sink = MlflowSink(run.folder, f"sqlite:///{home / 'mlflow.db'}", "fashion-mnist", "fashion-mnist", artifacts)
    for record in Journal(journalled.journal).read()[:3]:
        sink.send(record | {"workers": workers} if record["key"] != "start" else record)
    return run


@pytest.fixture
def tracked(workspace: Workspace) -> Workspace:
    return Workspace(Settings(tracking=True))


def test_a_run_of_another_machine_goes_on_here(
    tracked: Workspace, journalled: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMNIST_TRACKING", "yes")
    home = tracked.settings.home
    run = sent(journalled, home, workers=2)
    with pytest.raises(UserError, match=r"run 'latest': there is no run in .* yet"):
        tracked.run_to_resume("latest")
    fetched = tracked.run_to_resume(run.id)
    assert fetched.folder == home / "runs" / run.id
    assert fetched.config == journalled.config
    one, other = read_checkpoint(run.checkpoint), read_checkpoint(fetched.checkpoint)
    assert one.records == other.records
    assert all(torch.equal(one.state[name], other.state[name]) for name in one.state)
    assert {path.name for path in (home / "runs").iterdir()} == {run.id}
    monkeypatch.setenv("FMNIST_TRACKING", "no")
    done = train(resume=run.id, watcher=Silent())
    assert done.result is not None
    assert done.result.epochs == 3


def test_the_folder_that_a_run_had_before_spoils_nothing(
    tracked: Workspace, journalled: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine of the first driver starts again, days after another has gone on with its run."""
    home = tracked.settings.home
    run = sent(journalled, home, workers=2)
    fetched = tracked.run_to_resume(run.id)
    record = Journal(journalled.journal).read()[0]
    places = f"sqlite:///{home / 'mlflow.db'}", "fashion-mnist", "fashion-mnist", home / "artifacts"
    other = MlflowSink(fetched.folder, *places)
    other.send(record)
    other._client.set_terminated(other.there, "FINISHED")
    first, told = (
        MlflowSink(run.folder, *places),
        rf"run {run.id}: was fetched by another machine, .*, remove {run.folder}; from",
    )
    with pytest.raises(Failure, match=told):
        first.send(record)
    first.close(abandoned=True)
    assert other._client.get_run(other.there).info.status == "FINISHED"
    # gone on with there, both with two workers, as only the journal tells
    records = [dict(each, workers=2) for each in Journal(journalled.journal).read()[:3]]
    for folder in (run.folder, fetched.folder):
        Journal(folder / "journal.jsonl").add_missing(records)
    assert tracked.run_to_resume(run.id) == fetched
    other._client.delete_tag(other.there, HOLDER_TAG)  # as if the fetch had been cut off before it
    assert tracked.run_to_resume(run.id) == fetched
    run.folder.parent.rename(home / "old")
    old = replace(tracked, settings=tracked.settings.model_copy(update={"tracking_uri": places[0]}))
    monkeypatch.setattr(Workspace, "runs_root", home / "old")
    with pytest.raises(Failure, match="was fetched by another machine"):
        old.run_to_resume(run.id)
    (place,) = [Run(home / "old" / run.id)]
    with pytest.raises(Failure, match="was fetched by another machine"):
        old.sync(place, again=True)
    away = replace(old, settings=old.settings.model_copy(update={"tracking_uri": "http://127.0.0.1:9"}))
    assert away.run_to_resume(run.id) == place  # MLflow is away
    other._client.set_tag(other.there, HOLDER_TAG, "first")
    assert old.run_to_resume(run.id) == place
    with pytest.raises(Failure, match=r"set the run's tag fmnist.holder to \w{16} in MLflow"):
        MlflowSink(fetched.folder, *places).send(record)


def test_what_lies_in_its_place_is_not_written_over(tracked: Workspace, journalled: Run) -> None:
    run = sent(journalled, tracked.settings.home, workers=2)
    (tracked.runs_root / run.id).mkdir(parents=True)
    with pytest.raises(UserError, match="is there, but no run; move it away"):
        tracked.run_to_resume(run.id)


def test_of_one_process_no_checkpoint_is_sent(tracked: Workspace, journalled: Run) -> None:
    run = sent(journalled, tracked.settings.home, workers=1)
    with pytest.raises(UserError, match=rf"run '{run.id}': is not in .*runs, and MLflow has no checkpoint of it"):
        tracked.run_to_resume(run.id)


def test_a_checkpoint_is_there_before_the_scores_that_it_holds(
    tracked: Workspace, journalled: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who goes on without it would do the epoch again, and MLflow would have it twice."""

    def lost(*_: object) -> None:
        raise ConnectionError("the machine is lost")

    monkeypatch.setattr(MlflowSink, "_log_scores", lost)
    with pytest.raises(ConnectionError, match="the machine is lost"):
        sent(journalled, tracked.settings.home, workers=2)
    assert tracked.run_to_resume(journalled.id).checkpoint.exists()


def test_a_run_whose_checkpoint_was_freed_is_sent_all_the_same(workspace: Workspace, journalled: Run) -> None:
    home = workspace.settings.home
    run = Run(Path(shutil.copytree(journalled.folder, home / "runs" / journalled.id)))
    run.checkpoint.unlink()
    sink = MlflowSink(run.folder, f"sqlite:///{home / 'mlflow.db'}", "fashion-mnist", "fashion-mnist", home / "files")
    for record in Journal(run.journal).read()[:-1]:
        sink.send(record if record["key"] == "start" else record | {"workers": 2})


def test_a_run_that_nobody_knows(tracked: Workspace, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "20260101-000000-00000"
    with pytest.raises(UserError, match="MLflow has no checkpoint of it"):
        tracked.run_to_resume(nowhere)
    assert not tracked.settings.home.exists()  # no database is made to look for it
    with pytest.raises(UserError, match="there is no such run in"):
        workspace.run_to_resume(nowhere)
    away = Workspace(tracked.settings.model_copy(update={"tracking_uri": "http://127.0.0.1:9"}))
    with pytest.raises(Failure, match="does not answer"):
        away.run_to_resume(nowhere)
