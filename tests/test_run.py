import json
import multiprocessing
from pathlib import Path

import pytest

from fmnist.errors import Failure, UserError
from fmnist.recipe import TrainConfig
from fmnist.run import About, Result, Run, create_run, find_run, list_runs
from fmnist.scores import Scores

from .helpers import PATIENCE


def about(second: int = 0) -> About:
    data = {"name": "custom", "source": "here", "digest": "d" * 64, "class_names": ["a", "b"]}
    created = f"2026-11-24T08:00:{second:02}+00:00"
    return About(created=created, config=TrainConfig(seed=second), data=data, device="cpu", precision="float32")


def result(run: Run) -> Result:
    run.model.write_bytes(b"model")
    digest = "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"
    scores = Scores(0.5, 0.25, 0.125, 0.5, 1.0)
    return Result(
        epochs=2,
        best_epoch=1,
        seconds=3.5,
        images_per_second=10,
        phases={"training": 3},
        val=scores,
        test=scores,
        test_confusion=[[1, 2], [3, 4]],
        model_sha256=digest,
    )


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    run = create_run(tmp_path, about())
    assert run.id.startswith("20261124-080000-")
    again = Run(run.folder)
    assert again == run and again.about == about() and again.result is None
    written = result(run)
    run.write_result(written)
    assert again.result == written
    assert repr(again).endswith("fast, 2 epochs, validation 25.00%, test 25.00%)")


def test_runs_are_found_by_id_by_its_beginning_and_as_latest(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "none") == []
    with pytest.raises(UserError, match=r"run 'latest': there is no run in .* yet; make one: fmnist train"):
        find_run(tmp_path, "latest")
    runs = [create_run(tmp_path, about(second)) for second in (30, 10, 20)]
    assert [run.config.seed for run in list_runs(tmp_path)] == [10, 20, 30]
    assert find_run(tmp_path, "latest") == runs[0]
    assert find_run(tmp_path, runs[1].id) == find_run(tmp_path, runs[1].id[:-2]) == runs[1]
    with pytest.raises(UserError, match=r"run '2026': could be any of .*; fmnist runs lists them"):
        find_run(tmp_path, "2026")
    for wrong in ("banana", "", "..", "/"):
        with pytest.raises(UserError, match=r"there is no such run in .*; fmnist runs lists them"):
            find_run(tmp_path, wrong)


def test_the_latest_finished_run_passes_over_the_others(tmp_path: Path) -> None:
    first, second = (create_run(tmp_path, about(number)) for number in (1, 2))
    with pytest.raises(UserError, match="there is no finished run"):
        find_run(tmp_path, "latest", finished=True)
    first.write_result(result(first))
    assert find_run(tmp_path, "latest", finished=True) == first
    assert find_run(tmp_path, "latest") == second


def test_a_model_is_handed_out_only_as_it_was_when_the_run_ended(tmp_path: Path) -> None:
    run = create_run(tmp_path, about())
    with pytest.raises(UserError, match=f"run {run.id}: has no model yet; finish it: fmnist train --resume {run.id}"):
        run.verified_model()
    run.write_result(result(run))
    assert run.verified_model() == run.model
    run.model.write_bytes(b"modem")
    with pytest.raises(Failure, match=r"model\.onnx: is damaged: its SHA-256"):
        run.verified_model()


ODD = '{"created": "x", "config": {}, "data": 5, "device": "cpu", "precision": "fp32"}'


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"created": "x", "config": {"epochs": -1}}', ODD])
def test_a_damaged_config_is_named(tmp_path: Path, content: str) -> None:
    run = create_run(tmp_path, about())
    (run.folder / "config.json").write_text(content)
    with pytest.raises(Failure, match=r"config\.json: is not what a run writes \(.*\); restore it"):
        _ = Run(run.folder).about
    (run.folder / "result.json").write_text(content)
    with pytest.raises(Failure, match=r"result\.json: "):
        _ = run.result


def test_configuration_is_plain_json(tmp_path: Path) -> None:
    values = json.loads((create_run(tmp_path, about()).folder / "config.json").read_text())
    assert values["config"]["recipe"] == "fast"
    assert values["data"]["digest"] == "d" * 64


def test_a_run_from_before_a_field_was_there_has_what_it_was_trained_with(tmp_path: Path) -> None:
    run = create_run(tmp_path, about())
    values = json.loads((run.folder / "config.json").read_text())
    del values["config"]["optimizer"], values["config"]["label_smoothing"]
    (run.folder / "config.json").write_text(json.dumps(values))
    config = Run(run.folder).config
    assert (config.optimizer, config.label_smoothing) == ("adamw", 0)
    assert config.model_copy(update={"optimizer": "muon"}) != config


def hold(folder: Path, held: "multiprocessing.Queue[bool]", leave: "multiprocessing.Queue[bool]") -> None:
    with Run(folder).lock():
        held.put(True)
        leave.get(timeout=PATIENCE)


def test_a_second_process_is_told_who_holds_the_run(tmp_path: Path) -> None:
    run = create_run(tmp_path, about())
    context = multiprocessing.get_context("spawn")
    held, leave = context.Queue(), context.Queue()
    other = context.Process(target=hold, args=(run.folder, held, leave))
    other.start()
    held.get(timeout=PATIENCE)
    with (
        pytest.raises(Failure, match=rf"run {run.id}: is being trained by process {other.pid} on .*; wait for it"),
        run.lock(),
    ):
        pass
    leave.put(True)
    other.join(30)
    with run.lock():
        pass
