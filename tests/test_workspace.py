import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fmnist
from fmnist import Predictor, TrainConfig, evaluate, load_data, train
from fmnist.data.dataset import Dataset
from fmnist.errors import Failure, UserError
from fmnist.progress import Silent
from fmnist.provenance import provenance
from fmnist.run import Run
from fmnist.serve.wiring import make_plan
from fmnist.tracking.journal import Journal
from fmnist.tracking.records import start_record
from fmnist.tracking.shipper import State
from fmnist.workspace import Workspace

from .helpers import DATA

CONFIG = TrainConfig(epochs=1, batch_size=64, precision="fp32")


def test_the_api_from_data_to_answers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_data()
    run = train(CONFIG, data, name="first", tags={"a": "b"})
    assert "1/1" in capsys.readouterr().out  # it shows its progress
    result = run.result
    assert result is not None
    assert (run.about.name, run.about.tags, run.about.data["digest"]) == ("first", {"a": "b"}, data.digest)
    assert evaluate(run).scores == evaluate("latest").scores == result.test
    assert evaluate(run.id, "validation").scores == result.val
    assert Predictor(run.model).predict(data.test.images[:1])[0].label in data.class_names
    assert train(resume="latest", watcher=Silent()) == run


def test_the_module_offers_its_names_and_no_others() -> None:
    assert set(fmnist.__all__) <= set(dir(fmnist))
    with pytest.raises(AttributeError, match="module 'fmnist' has no attribute 'banana'"):
        _ = fmnist.banana


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import fmnist", {"torch", "numpy", "pydantic", "rich", "onnxruntime"}),
        ("import fmnist.workspace, fmnist.cli", {"torch", "sklearn", "pyarrow", "onnxruntime", "pooch", "onnx"}),
        ("from fmnist import TrainConfig; TrainConfig()", {"torch", "numpy"}),
    ],
)
def test_imports_bring_no_more_than_they_need(statement: str, forbidden: set[str]) -> None:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert forbidden.isdisjoint(loaded)


def test_a_resume_takes_the_runs_own_configuration(workspace: Workspace, dataset: Dataset) -> None:
    run = workspace.new_run(CONFIG, dataset, "cpu").run
    with pytest.raises(
        UserError,
        match=rf"run {run.id}: cannot go on with epochs 5 \(the run has 1\) or seed 3 \(the run has 0\); leave",
    ):
        train(CONFIG.model_copy(update={"seed": 3, "epochs": 5}), resume=run.id)
    assert train(CONFIG, resume=run.id, watcher=Silent()).result is not None


def test_a_resume_with_other_data_is_refused(workspace: Workspace, dataset: Dataset, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(DATA, own, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    run = workspace.new_run(CONFIG, workspace.load_data(own), "cpu").run
    assert workspace.data_of(run).source == str(own)  # from where the run had them
    for name in ("images-idx3", "labels-idx1"):
        shutil.copy(DATA / f"t10k-{name}-ubyte.gz", own / f"train-{name}-ubyte.gz")
    with pytest.raises(
        UserError, match=rf"data {own}: have the digest .*, run {run.id} was trained on .*; give its own"
    ):
        _ = workspace.resume(run.id).data
    assert workspace.resume(run.id, dataset).data is dataset


def test_two_processes_do_not_train_one_run(workspace: Workspace, dataset: Dataset) -> None:
    job = workspace.new_run(CONFIG, dataset, "cpu")
    with job.run.lock(), pytest.raises(Failure, match="is being trained by process"):
        workspace.resume(job.run.id).train(Silent())


def test_a_run_that_has_no_model_yet_cannot_answer(workspace: Workspace, dataset: Dataset) -> None:
    run = workspace.new_run(CONFIG, dataset, "cpu").run
    with pytest.raises(UserError, match="has no model yet; finish it"):
        workspace.predictor(run.id)
    with pytest.raises(UserError, match="there is no finished run"):
        workspace.predictor()


def test_a_damaged_model_is_named_and_not_loaded(workspace: Workspace, dataset: Dataset, finished: Run) -> None:
    run = workspace.new_run(CONFIG, dataset, "cpu").train(Silent())
    raw = bytearray(run.model.read_bytes())
    raw[len(raw) // 2] ^= 1
    run.model.write_bytes(raw)
    with pytest.raises(Failure, match=r"model\.onnx: is damaged: its SHA-256 is not the one"):
        workspace.evaluate(run.id)
    for model in (run.model, os.path.relpath(run.model)):  # named by its path, it is still known whose it is
        with pytest.raises(Failure, match=r"model\.onnx: is damaged"):
            workspace.predictor(str(model))
        with pytest.raises(Failure, match=r"model\.onnx: is damaged"):
            make_plan(workspace, str(model), "127.0.0.1", 8000)
    shutil.copy(finished.model, run.folder.parent / "other.onnx")
    workspace.predictor(str(run.folder.parent / "other.onnx"))


def test_a_changed_configuration_is_named_before_anything_goes_on(
    workspace: Workspace, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked = Workspace(workspace.settings.model_copy(update={"tracking": True}))
    monkeypatch.setattr("fmnist.workspace.start_shipper", lambda run, home: subprocess.Popen(["true"]))
    run = tracked.new_run(CONFIG, dataset, "cpu").run
    Journal(run.journal).add_missing([start_record(run)])
    about = run.folder / "config.json"
    about.write_text(about.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(Failure, match=r"config\.json: has seed 1, the run began with 0; make it that again, or train"):
        tracked.train(tracked.resume(run.id, dataset), Silent())
    about.write_text(about.read_text().replace('"seed": 1', '"seed": 0'))
    assert tracked.train(tracked.resume(run.id, dataset), Silent()).finished


def own_data(folder: Path, names: str = "") -> Path:
    shutil.copytree(DATA, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    if names:
        (folder / "labels.txt").write_text("\n".join(names))
    return folder


def test_a_resume_with_other_class_names_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    own = own_data(tmp_path / "own", "abcdefghij")
    run = workspace.new_run(CONFIG, workspace.load_data(own), "cpu").run
    (own / "labels.txt").write_text("\n".join("klmnopqrst"))
    with pytest.raises(UserError, match=rf"data {own}: have the classes k, l, .* or t, run {run.id} a, b, .* or j"):
        _ = workspace.resume(run.id).data


def test_a_run_that_is_over_needs_no_data_and_writes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    own = own_data(tmp_path / "own")
    run = workspace.new_run(CONFIG, workspace.load_data(own), "cpu").train(Silent())
    shutil.rmtree(own)
    shutil.rmtree(workspace.settings.home / "data")
    before = {path: path.stat().st_mtime_ns for path in workspace.settings.home.rglob("*")}
    assert train(resume=run.id, watcher=Silent()) == run
    assert {path: path.stat().st_mtime_ns for path in workspace.settings.home.rglob("*")} == before


def test_a_model_that_is_gone_is_exported_again(workspace: Workspace, dataset: Dataset) -> None:
    run = workspace.new_run(CONFIG, dataset, "cpu").train(Silent())
    before = run.model.read_bytes(), run.result.test if run.result else None
    run.model.unlink()
    assert train(resume=run.id, watcher=Silent()) == run
    assert run.result is not None
    assert (run.verified_model().read_bytes(), run.result.test) == before


def test_a_run_on_fetched_data_stays_so_whatever_lies_in_data(
    workspace: Workspace, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def find(folder: Path | None, *args: object, **kwargs: object) -> Dataset:
        asked.append(folder)
        return fetched

    fetched = dataclasses.replace(dataset, name="fashion-mnist", source="downloaded")
    run = workspace.new_run(CONFIG, fetched, "cpu").run
    monkeypatch.setattr("fmnist.workspace.find_data", find)
    assert workspace.data_of(run) is fetched
    assert asked == [None]


def test_a_run_as_a_value_is_scored_wherever_one_is(
    home: Path, workspace: Workspace, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = workspace.new_run(CONFIG, dataset, "cpu").train(Silent())
    monkeypatch.setenv("FMNIST_HOME", str(tmp_path / "elsewhere"))
    assert run.result is not None
    assert evaluate(run, data=dataset).scores == run.result.test


def test_what_earlier_runs_lack_is_sent_at_the_next_start(
    workspace: Workspace, dataset: Dataset, journalled: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices: list[str] = []
    sent: list[Run] = []
    tracked = Workspace(workspace.settings.model_copy(update={"tracking": True}), notices.append)
    monkeypatch.setattr("fmnist.workspace.start_catching_up", lambda runs, home: sent.extend(runs))
    monkeypatch.setattr("fmnist.workspace.start_shipper", lambda run, home: subprocess.Popen(["true"]))
    earlier = Run(Path(shutil.copytree(journalled.folder, workspace.runs_root / journalled.id)))
    first = tracked.train(workspace.new_run(CONFIG, dataset, "cpu"), Silent())
    assert sent == [earlier]
    assert notices == ["what 1 earlier run still lacks is sent meanwhile"]
    earlier.journal.write_bytes(b"damaged\n" * 3)
    tracked.train(workspace.new_run(CONFIG, dataset, "cpu"), Silent())
    assert sent == [earlier, first]
    assert "journal.jsonl: is damaged in line 1" in notices[1]


def test_a_run_that_was_not_tracked_is_not_said_to_be_sent(workspace: Workspace, dataset: Dataset) -> None:
    run = workspace.new_run(CONFIG, dataset, "cpu").train(Silent())
    with pytest.raises(Failure, match=f"run {run.id}: was not tracked; have it done: fmnist train --resume {run.id}"):
        workspace.sync(run)


def test_to_send_all_anew_forgets_no_other_place(
    workspace: Workspace, journalled: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(Path(shutil.copytree(journalled.folder, workspace.runs_root / journalled.id)))
    monkeypatch.setattr("fmnist.workspace.ship", lambda *_, **__: {})
    own = list(workspace.destinations.sinks(run))
    for lane in (*own, "mlflow http://elsewhere:5000"):
        State(run).note(lane, 5, None, ended=True)
    workspace.sync(run, again=True)
    assert list(State(run).lanes) == ["mlflow http://elsewhere:5000"]


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert provenance()["user"] == str(os.getuid())
