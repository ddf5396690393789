"""A run's folder copied to another machine: there `fmnist sync` makes the same run, once, with its own times."""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist.errors import Failure
from fmnist.files import sha256_of
from fmnist.ops.holdings import left_behind
from fmnist.run import Run
from fmnist.tracking.elsewhere import ask_mlflow, check_journal, lanes_elsewhere
from fmnist.tracking.journal import Journal, Record
from fmnist.tracking.records import model_of
from fmnist.tracking.shipper import State, ship
from fmnist.tracking.wiring import Destinations
from fmnist.workspace import open_workspace

from ..conftest import Command

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future

DAYS_AGO = 3 * 24 * 60 * 60.0
ALL = ["start", "epoch/1", "epoch/2", "epoch/3", "end"]


def machine(home: Path) -> Destinations:
    return Destinations(
        f"sqlite:///{home / 'mlflow.db'}", "fashion-mnist", "fashion-mnist", home / "artifacts", home / "tensorboard"
    )


@pytest.fixture(scope="module")
def theirs(journalled: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """On another machine: Ada trained it there days ago, on data that are not here, and its MLflow has all of it."""
    home = tmp_path_factory.mktemp("theirs")
    run = Run(Path(shutil.copytree(journalled.folder, home / "runs" / journalled.id)))
    records = [{**record, "time": record["time"] - DAYS_AGO} for record in Journal(run.journal).read()]
    facts = {**records[0]["facts"], "user": "ada", "host": "mill", "code": "c0de"}
    records[0] |= {"facts": facts, "data": {**records[0]["data"], "source": "/home/ada/clothes"}}
    run.journal.unlink()
    Journal(run.journal).add_missing(records)
    assert ship(run, machine(home).sinks(run), follow=False) == {}
    return run


def brought(run: Run, home: Path, records: Sequence[Record] | None = None) -> Run:
    """A copy in the workspace `home`, which calls its places as the other machine does its own.

    `records`: copied amid the training, when it had no more.
    """
    copy = Run(Path(shutil.copytree(run.folder, home / "runs" / run.id, dirs_exist_ok=True)))
    of, to = machine(run.folder.parents[1]), machine(home.resolve())
    lanes = State(run).lanes
    names = {of.mlflow_lane: to.mlflow_lane, of.tensorboard_lane: to.tensorboard_lane}
    if records is not None:
        lanes = {lane: {**values, "sent": len(records), "ended": False} for lane, values in lanes.items()}
        copy.journal.unlink()
        Journal(copy.journal).add_missing(records)
        for name in ("result.json", "model.onnx"):
            (copy.folder / name).unlink()
    copy.shipping.write_text(json.dumps({names[lane]: values for lane, values in lanes.items()}))
    return copy


def told(done: tuple[int, str, str]) -> str:
    """The last line of a command that went well."""
    code, out, err = done
    assert (code, out) == (0, ""), err
    return err.splitlines()[-1]


def in_mlflow(home: Path) -> Any:
    """All that one sees there of the one run, without what its place must name otherwise."""
    client: Any = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}", f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fashion-mnist").experiment_id
    (run,) = client.search_runs([experiment])
    (version,) = client.search_model_versions("name = 'fashion-mnist'")
    (model,) = client.search_logged_models([experiment])
    files = Path(client.download_artifacts(run.info.run_id, ""))
    points = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {
        "info": (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time, run.info.user_id),
        "params": run.data.params,
        "tags": run.data.tags,
        "points": {name: [(p.step, p.value, p.timestamp) for p in own] for name, own in points.items()},
        "data": [(given.dataset.digest, given.dataset.source) for given in run.inputs.dataset_inputs],
        "files": {str(f.relative_to(files)): sha256_of(f) for f in files.rglob("*") if f.is_file()},
        "version": (version.tags, version.version, version.aliases),
        "model": model.tags,
    }


def in_tensorboard(folder: Path) -> Any:
    guidance = {"images": 0, "scalars": 0}
    events: Any = EventAccumulator(str(folder), size_guidance=guidance).Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    images = {tag: [(i.step, i.wall_time) for i in events.Images(tag)] for tag in events.Tags()["images"]}
    return scalars, images


def test_it_is_the_same_run_with_its_own_times_status_and_user(theirs: Run, home: Path, fmnist: Command) -> None:
    run, origin = brought(theirs, home), theirs.folder.parents[1]
    assert left_behind(home, open_workspace().destinations) == [run]  # doctor sees it too
    assert told(fmnist("sync", run.id)) == f"fmnist: run {run.id}: all is sent"
    assert in_mlflow(home) == in_mlflow(origin)
    info, tags = in_mlflow(home)["info"], in_mlflow(home)["tags"]
    records = Journal(run.journal).read()
    assert info == (run.id, "FINISHED", *(int(records[at]["time"] * 1000) for at in (0, -1)), "ada")
    assert (tags["mlflow.user"], tags["fmnist.host"], in_mlflow(home)["model"]["mlflow.user"]) == ("ada", "mill", "ada")
    logs = home / "tensorboard" / run.id
    assert in_tensorboard(logs) == in_tensorboard(origin / "tensorboard" / run.id)
    before = sorted(logs.iterdir())
    assert fmnist("sync")[0] == 0  # again: it has all
    assert sorted(logs.iterdir()) == before and left_behind(home, open_workspace().destinations) == []


def test_copied_amid_its_training_and_again_at_its_end(theirs: Run, home: Path, fmnist: Command) -> None:
    """Both copies say that all they have was sent, as it was where they come from."""
    records = Journal(theirs.journal).read()
    run = brought(theirs, home, records[:3])
    assert told(fmnist("sync", run.id)) == f"fmnist: run {run.id}: all is sent that is here; it is not finished"
    client: Any = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (half,) = client.search_runs(["1"])
    assert (half.info.status, half.info.end_time) == ("KILLED", int(records[2]["time"] * 1000))
    brought(theirs, home)
    assert told(fmnist("sync", run.id)) == f"fmnist: run {run.id}: all is sent"
    assert in_mlflow(home) == in_mlflow(theirs.folder.parents[1])
    scalars, _ = in_tensorboard(home / "tensorboard" / run.id)
    assert [point.step for point in scalars["val_accuracy"]] == [1, 2, 3]


def test_what_a_folder_says_counts_where_mlflow_calls_the_run_the_same(own_copy: Run, tmp_path: Path) -> None:
    to, state = machine(tmp_path), State(own_copy)
    (to.logs / own_copy.id).mkdir(parents=True)
    (to.logs / own_copy.id / "events.out.1.one").touch()
    assert lanes_elsewhere(own_copy, to, {}) == []  # nothing is said
    for lane in (to.mlflow_lane, to.tensorboard_lane):
        state.note(lane, 5, None, ended=True, there="one")
    assert lanes_elsewhere(own_copy, to, {own_copy.id: "one"}) == []
    assert lanes_elsewhere(own_copy, to, {own_copy.id: "another"}) == [to.mlflow_lane]
    assert lanes_elsewhere(own_copy, to, {}) == [to.mlflow_lane]
    assert lanes_elsewhere(own_copy, to, Failure("MLflow", "does not answer")) == []
    (to.logs / own_copy.id / "events.out.1.one").rename(to.logs / own_copy.id / "events.out.1.another")
    assert lanes_elsewhere(own_copy, to, {own_copy.id: "one"}) == [to.tensorboard_lane]
    assert ask_mlflow(to, [own_copy]) == {}  # there is no database


def test_an_mlflow_that_cannot_be_asked_is_told(own_copy: Run, home: Path, fmnist: Command) -> None:
    run = Run(Path(shutil.copytree(own_copy.folder, home / "runs" / own_copy.id)))
    to = open_workspace().destinations
    for lane in (to.mlflow_lane, to.tensorboard_lane):
        State(run).note(lane, 5, None, ended=True)
    (home / "mlflow.db").write_bytes(b"something else entirely" * 100)
    code, _, err = fmnist("sync", run.id)
    assert code == 1 and f"fmnist: {home / 'mlflow.db'}: cannot be read (file is not a database)" in err


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("no config.json", "{folder}: has no config.json, so it is no whole run; copy its folder again"),
        ("no journal", "run {id}: was not tracked; have it done: fmnist train --resume {id}"),
        ("cut journal", "{folder}/journal.jsonl: ends before its run did; copy it again, or complete it: fmnist train"),
        ("other name", "{folder}: holds the run {id}; give the folder that name, then sync"),
        ("damaged journal", "{folder}/journal.jsonl: is damaged in line 1; restore it, or remove it and resume the"),
    ],
)
def test_half_a_copy_is_told_in_a_line(own_copy: Run, home: Path, fmnist: Command, harm: str, message: str) -> None:
    name = "20260101-000000-00001" if harm == "other name" else own_copy.id
    folder = Path(shutil.copytree(own_copy.folder, home / "runs" / name))
    if harm == "no config.json":
        (folder / "config.json").unlink()
    elif harm == "no journal":
        (folder / "journal.jsonl").unlink()
    elif harm == "cut journal":
        journal = (folder / "journal.jsonl").read_bytes()
        (folder / "journal.jsonl").write_bytes(journal[: len(journal) * 2 // 3])
    elif harm == "damaged journal":
        (folder / "journal.jsonl").write_bytes(b"x" + (folder / "journal.jsonl").read_bytes())
    code, _, err = fmnist("sync", name)
    assert code in (1, 2) and err.startswith(f"fmnist: {message.format(folder=folder, id=own_copy.id)}"), err
    assert err.count("\n") == 1 and not (home / "mlflow.db").exists()


def test_a_model_that_was_not_copied_is_told(own_copy: Run, records: list[Record]) -> None:
    assert model_of(own_copy.folder, records[-1]) == own_copy.model
    check_journal(own_copy)
    own_copy.model.unlink()
    with pytest.raises(Failure, match=r"model\.onnx: is not there; restore it or copy the run's folder whole"):
        model_of(own_copy.folder, records[-1])


def test_what_a_place_has_lost_is_sent_anew_when_that_is_asked(theirs: Run, home: Path, fmnist: Command) -> None:
    run = brought(theirs, home)
    told(fmnist("sync", run.id))
    whole = in_mlflow(home)["points"]
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute("DELETE FROM metrics WHERE step = 2")
    told(fmnist("sync", run.id))
    assert in_mlflow(home)["points"] != whole  # what is noted is believed
    told(fmnist("sync", "--again", run.id))
    assert in_mlflow(home)["points"] == whole
