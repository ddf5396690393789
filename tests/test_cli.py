import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fmnist import manage
from fmnist.__main__ import main
from fmnist.run import Run

from .conftest import Command
from .helpers import DATA

QUICK = ("--epochs", "1", "--batch-size", "64", "--precision", "fp32")


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("train --epochs -1", "--epochs -1: is too small; give at least 1"),
        (f"train --epochs {'9' * 400}", f"--epochs {'9' * 60}…: is too large; give at most 100000"),
        ("train --epochs 1.5", "--epochs 1.5: is no whole number; give one"),
        ("train --batch-size 0", "--batch-size 0: is too small; give at least 2"),
        ("train --batch-size 321", "batch_size 321: is more than the 320 training images; give at most that"),
        ("train --learning-rate nan", "--learning-rate nan: is no finite number; give one"),
        ("train --learning-rate fast", "--learning-rate fast: is no number; give one"),
        ("train --recipe banana", "recipe 'banana': there is no such recipe; choose fast, original or resnet, or a"),
        ("train --model banana", "model 'banana': there is no such model; choose cnn or resnet, or module:function"),
        ("train --device banana", "device 'banana': there is no such device; choose auto, cpu or cuda"),
        ("train --precision banana", "--precision banana: is not known; give 'auto', 'fp32' or 'bf16'"),
        ("train --tag fmnist.run_id=x", "--tag 'fmnist.run_id=x': begins as the platform's own tags do; choose"),
        ("train --tag banana", "--tag 'banana': is no pair; give it as KEY=VALUE"),
        ("train --data missing", "missing: is no folder; give one with two CSV files"),
        ("train --data empty", "empty: holds no data; give one with two CSV files"),
        ("train --data other", "other: holds no data; give one with two CSV files"),
        ("train --resume banana", "run 'banana': there is no such run in "),
        ("train --resume latest", "run 'latest': there is no run in "),
        ("train banana", "got unexpected extra argument(s) (banana); see fmnist --help"),
        ("train --banana", "no such option: --banana; see fmnist --help"),
        ("banana", "no such command 'banana'"),
        ("evaluate banana", "run 'banana': there is no such run in "),
        ("evaluate text.onnx", "text.onnx: is no ONNX model"),
        ("evaluate --split banana", "--split banana: there is no such split; give train, validation or test"),
        ("predict", "missing argument 'FILE…'; see fmnist --help"),
        ("predict --model text.onnx text.png", "text.onnx: is no ONNX model"),
        ("predict --model MODEL text.png", "text.png: is no PNG, JPEG, WebP or IDX; give a picture"),
        ("predict --model MODEL empty.png", "empty.png: is empty; give a picture"),
        ("predict --model MODEL empty", "empty: is a folder; name the pictures in it"),
        ("predict --model MODEL missing.png", "missing.png: cannot be read (No such file or directory)"),
    ],
)
def test_bad_input_ends_in_one_line(fmnist: Command, home: Path, finished: Run, arguments: str, told: str) -> None:
    place = home.parent
    (place / "empty").mkdir()
    (place / "other").mkdir()
    (place / "other" / "readme.txt").write_text("hello")
    for name in ("text.onnx", "text.png"):
        (place / name).write_text("hello")
    (place / "empty.png").touch()
    fmnist("data")  # so that the data are cached
    before = files_below(place)
    code, out, err = fmnist(*arguments.replace("MODEL", str(finished.model)).split())
    assert (code, out) == (2, "")
    assert err.startswith(f"fmnist: {told}")
    assert err.count("\n") == 1
    assert files_below(place) == before


@pytest.mark.parametrize(
    ("name", "told"), [("FMNIST_DOWNLOAD", "FMNIST_DOWNLOAD banana: is neither"), ("FMNIST_X", "FMNIST_X: there is no")]
)
def test_a_wrong_setting_ends_in_one_line(
    fmnist: Command, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.setenv(name, "banana")
    code, out, err = fmnist("runs")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"fmnist: {told}")


def test_a_place_that_cannot_be_written(fmnist: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FMNIST_HOME", str(tmp_path / "file"))
    code, _, err = fmnist("data")
    assert (code, err) == (
        2,
        f"fmnist: {tmp_path}/file/data: cannot be made a folder (Not a directory); choose another place\n",
    )


def test_debug_adds_the_traceback(home: Path) -> None:
    with pytest.raises(ValueError, match="there is no such recipe"):
        main(["train", "--recipe", "banana", "--debug"])


def test_the_whole_path_for_people(fmnist: Command, tmp_path: Path, finished: Run) -> None:
    assert fmnist("runs") == (0, "no runs yet; make one: fmnist train\n", "")
    code, out, err = fmnist("data")
    assert (code, err) == (0, "")
    assert "your own data" in out
    assert "320" in out
    code, out, err = fmnist("train", *QUICK, "--name", "mine", "--note", "a try", "--tag", "a=b=c")
    assert (code, err) == (0, "")
    for part in (
        "conv3",
        "73,856",
        "cnn: 246,666 parameters, 244,106",
        "1/1",
        "most often taken for",
        "where the time went",
        "next",
    ):
        assert part in out
    run_id = next(line.split()[1] for line in out.splitlines() if line.startswith("run "))
    code, out, _ = fmnist("runs")
    assert code == 0
    assert run_id in out
    assert "mine" in out
    code, out, _ = fmnist("evaluate")
    assert code == 0
    assert "on 100 test images" in out
    Image.new("L", (40, 60), 200).save(tmp_path / "x.png")
    code, out, _ = fmnist("predict", tmp_path / "x.png", DATA / "t10k-images-idx3-ubyte.gz")
    assert code == 0
    assert "x.png" in "".join(out.split())
    assert "and 61 more; --json lists them all" in out
    assert "█" in out


def json_of(answer: tuple[int, str, str]) -> dict[str, Any]:
    code, out, _ = answer
    assert code == 0
    assert out.count("\n") == 1
    values: dict[str, Any] = json.loads(out)
    return values


def test_the_whole_path_for_programs(fmnist: Command, tmp_path: Path) -> None:
    data = json_of(fmnist("data", "--json"))
    assert data["images"] == {"train": 320, "validation": 80, "test": 100}
    trained = json_of(fmnist("train", *QUICK, "--json", "--tag", "a=b"))
    assert set(trained) == {"run_id", "epochs", "seconds", "images_per_second", "val", "test", "model"}
    assert set(trained["val"]) == set(trained["test"]) == {"loss", "accuracy", "precision", "recall", "f1"}
    scored = json_of(fmnist("evaluate", trained["run_id"], "--json"))
    assert {name: scored[name] for name in trained["test"]} == trained["test"]
    scored = json_of(fmnist("evaluate", trained["model"], "--split", "validation", "--json"))
    assert {name: scored[name] for name in trained["val"]} == trained["val"]
    assert json_of(fmnist("train", "--resume", "latest", "--json")) == trained
    Image.new("L", (40, 60), 200).save(tmp_path / "x.png")
    (answer,) = json_of(fmnist("predict", tmp_path / "x.png", "--json"))["predictions"]
    assert answer["picture"] == str(tmp_path / "x.png")
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    (run,) = json_of(fmnist("runs", "--json"))["runs"]
    assert (run["run_id"], run["finished"], run["tags"]) == (trained["run_id"], True, {"a": "b"})
    assert run["config"]["epochs"] == 1


def test_a_resume_refuses_what_differs_and_takes_what_does_not(fmnist: Command) -> None:
    run_id = json_of(fmnist("train", *QUICK, "--json", "--name", "x"))["run_id"]
    code, _, err = fmnist("train", "--resume", run_id, "--epochs", "2", "--name", "y")
    assert code == 2
    assert (
        f"fmnist: run {run_id}: cannot go on with epochs 2 (the run has 1) or name 'y' (the run has 'x'); leave" in err
    )
    code, _, err = fmnist("train", "--resume", run_id, "--recipe", "original")
    assert code == 2
    assert "recipe 'original' (the run has 'fast')" in err
    assert json_of(fmnist("train", "--resume", run_id, *QUICK, "--name", "x", "--json"))["run_id"] == run_id


def test_a_damaged_run_does_not_hide_the_others(fmnist: Command, home: Path) -> None:
    trained = json_of(fmnist("train", *QUICK, "--json"))
    broken = home / "runs" / "20990101-000000-00000"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    (home / "runs" / "junk").mkdir()
    code, out, _ = fmnist("runs")
    assert code == 0
    assert trained["run_id"] in out
    assert "config.json: is not what a run writes" in out
    good, bad = json_of(fmnist("runs", "--json"))["runs"]
    assert (good["run_id"], good["finished"], bad["run_id"]) == (trained["run_id"], True, broken.name)
    assert json_of(fmnist("evaluate", "latest", "--json"))["accuracy"] == trained["test"]["accuracy"]
    code, _, err = fmnist("train", "--resume", "latest")
    assert (code, err.count("\n")) == (1, 1)
    assert "config.json: is not what a run writes" in err


def test_what_is_unexpected_is_one_line_too(fmnist: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(notice: object) -> None:
        raise TypeError("a\nbug")

    monkeypatch.setattr(manage, "open_workspace", broken)
    code, out, err = fmnist("runs")
    assert (code, out) == (1, "")
    assert err == "fmnist: unexpected TypeError: a bug; see it whole with --debug, and report it\n"


def test_help_and_version(fmnist: Command) -> None:
    code, out, _ = fmnist("--version")
    assert (code, out.split()[0]) == (0, "fmnist")
    code, out, _ = fmnist()
    assert code == 0
    for verb in ("data", "train", "evaluate", "predict", "runs"):
        assert verb in out


@pytest.mark.usefixtures("any_machine")
def test_doctor_ends_with_1_if_something_is_wrong(fmnist: Command, home: Path) -> None:
    code, out, _ = fmnist("doctor", "--json")
    assert (code, json.loads(out)["well"]) == (0, True)
    (home / "artifacts").rmdir()
    (home / "artifacts").write_text("in the folder's place")
    code, out, _ = fmnist("doctor", "--json")
    assert (code, json.loads(out)["well"]) == (1, False)
    code, out, _ = fmnist("doctor")
    assert code == 1 and "bad      artifact store" in out and "→ make room, or mend where it writes" in out


def test_sync_passes_over_runs_that_were_not_meant_to_be_tracked(fmnist: Command, home: Path) -> None:
    assert fmnist("train", *QUICK)[0] == 0  # with FMNIST_TRACKING=no
    assert fmnist("sync") == (0, "", "")
    code, _, err = fmnist("sync", "latest")
    assert code == 1 and "was not tracked; have it done" in err
