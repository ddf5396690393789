import os
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist.run import Run
from fmnist.tracking.journal import Record
from fmnist.tracking.tensorboard_sink import TensorboardSink

PNG = b"\x89PNG"


def written(run: Run, logs: Path, records: list[Record]) -> None:
    sink = TensorboardSink(run.folder, logs)
    for record in records:
        sink.send(record)
    sink.close(abandoned=False)


def read(logs: Path) -> Any:
    return EventAccumulator(str(logs), size_guidance={"images": 0, "scalars": 0}).Reload()


@pytest.mark.parametrize("times", [1, 2])
def test_everything_is_there_once_with_its_time(
    journalled: Run, records: list[Record], tmp_path: Path, times: int
) -> None:
    for number in range(times):  # the second time as after a crash: what the first wrote is there
        written(journalled, tmp_path, records[: 3 if number < times - 1 else 5])
    events = read(tmp_path)
    for name in records[1]["scores"]:
        points = events.Scalars(name)
        assert [point.step for point in points] == [1, 2, 3]
        assert [point.wall_time for point in points] == [record["time"] for record in records[1:4]]
        assert [point.value for point in points] == pytest.approx([record["scores"][name] for record in records[1:4]])
    (accuracy,) = events.Scalars("test_accuracy")
    assert accuracy.value == pytest.approx(records[-1]["scores"]["test_accuracy"])
    matrices = events.Images("confusion_matrix/validation")
    assert [image.step for image in matrices] == [1, 2, 3]
    assert all(image.encoded_image_string.startswith(PNG) and image.width == 800 for image in matrices)
    assert len(events.Images("confusion_matrix/test")) == len(events.Images("mistakes")) == 1


def test_a_reader_that_follows_along_sees_each_step_once(
    journalled: Run, records: list[Record], tmp_path: Path
) -> None:
    written(journalled, tmp_path, records[:3])
    reader = read(tmp_path)
    assert [point.step for point in reader.Scalars("val_f1")] == [1, 2]
    written(journalled, tmp_path, records)
    assert [point.step for point in reader.Reload().Scalars("val_f1")] == [1, 2, 3]


@pytest.mark.parametrize("ahead", [0, 3600])  # seconds: within the same one; before the clock was set right
def test_what_is_written_later_is_read_later_whatever_the_clock_says(
    journalled: Run, records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    moment = time.time()
    monkeypatch.setattr(time, "time", lambda: moment + ahead)
    written(journalled, tmp_path, records[:3])
    follower = read(tmp_path)
    monkeypatch.setattr(time, "time", lambda: moment)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    written(journalled, tmp_path, records)
    for reader in (follower.Reload(), read(tmp_path)):
        assert [point.step for point in reader.Scalars("val_f1")] == [1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 2


def test_at_the_end_all_is_on_disk(journalled: Run, records: list[Record], tmp_path: Path, synced: set[int]) -> None:
    written(journalled, tmp_path, records[:3])
    written(journalled, tmp_path, records)
    assert {path.stat().st_ino for path in (tmp_path, *tmp_path.iterdir())} <= synced


def test_graph_and_hparams(journalled: Run, records: list[Record], tmp_path: Path) -> None:
    written(journalled, tmp_path, records)
    events = read(tmp_path)
    nodes = {node.op for node in events.Graph().node}
    assert {"Placeholder", "Conv", "MaxPool", "Softmax"} <= nodes
    names = {node.name for node in events.Graph().node}
    assert all(source in names for node in events.Graph().node for source in node.input)
    tags = events.summary_metadata
    assert any(metadata.plugin_data.plugin_name == "hparams" for metadata in tags.values())
