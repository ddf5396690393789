"""Records -> TensorBoard's event files, without PyTorch.

One writer a run: whoever ships a run writes a new event file from the whole journal. It begins with a session's start
at step 0, which makes TensorBoard forget what older files of the run hold, so that no step shows twice. The older files
stay: a TensorBoard that is reading one stops following the run when it goes. It reads them in the order of their names,
which begin with a time.
"""

import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from fmnist.files import sync_tree
from fmnist.tracking.journal import Record
from fmnist.tracking.pictures import matrix_png, mistakes_png
from fmnist.tracking.records import model_of

MATRIX = "confusion_matrix"
PREFIX = "events.out.tfevents."
"""By which TensorBoard knows such a file."""


class TensorboardSink:
    """One run's folder of events."""

    starts_anew = True
    is_empty = False

    def __init__(self, run_folder: Path, log_folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._logs = log_folder
        self._run_folder, self._names, self._params = run_folder, [], {}  # type: tuple[Path, list[str], dict[str, Any]]
        self._started = 0.0  # Unix time
        self.there: str | None = secrets.token_hex(4)  # the end of its file's name
        log_folder.mkdir(parents=True, exist_ok=True)
        name = f"{PREFIX}{_after(log_folder):010}.{socket.gethostname()}.{os.getpid()}.{self.there}"
        self._writer = RecordWriter((log_folder / name).open("wb"))
        self._add(wall_time=time.time(), file_version="brain.Event:2")
        self._add(wall_time=time.time(), step=0, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def send(self, record: Record) -> None:
        """Write the record's values and make them visible."""
        moment, epoch = record["time"], int(record.get("epoch") or record.get("epochs") or 0)
        if record["key"] == "start":
            self._names, self._params, self._started = record["data"]["class_names"], record["params"], moment
        else:
            values = [self._scalar(name, value) for name, value in record["scores"].items()]
            which = "test" if record["key"] == "end" else "validation"
            values.append(self._image(f"{MATRIX}/{which}", matrix_png(record, self._names)))
            if record["key"] == "end":
                values.append(self._image("mistakes", mistakes_png(record)))
            self._write(moment, epoch, values)
        if record["key"] == "end":
            self._write_graph(model_of(self._run_folder, record), moment)
            self._write_hparams(moment, record)
        self._writer.flush()
        if record["key"] == "end":
            sync_tree(self._logs)  # the writer does not

    def close(self, *, abandoned: bool) -> None:
        self._writer.close()

    def _add(self, **event: Any) -> None:
        self._writer.write(self._event(**event).SerializeToString())

    def _write(self, moment: float, step: int, values: list[Any]) -> None:
        self._add(wall_time=moment, step=step, summary=self._summary(value=values))

    def _scalar(self, tag: str, value: float) -> Any:
        return self._summary.Value(tag=tag, simple_value=value)

    def _image(self, tag: str, png: bytes) -> Any:
        height, width = int.from_bytes(png[20:24]), int.from_bytes(png[16:20])  # the PNG header's
        picture = self._summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        return self._summary.Value(tag=tag, image=picture)

    def _write_graph(self, model: Path, moment: float) -> None:
        """The network's graph, from the exported model."""
        import onnx
        from tensorboard.compat.proto import graph_pb2

        graph, definition = onnx.load(model).graph, graph_pb2.GraphDef()
        definition.node.add(name=graph.input[0].name, op="Placeholder")
        maker = {graph.input[0].name: graph.input[0].name}
        for weight in graph.initializer:
            definition.node.add(name=weight.name, op="Const")
            maker[weight.name] = weight.name
        for number, node in enumerate(graph.node):
            name = node.name or f"{node.op_type}_{number}"
            definition.node.add(name=name, op=node.op_type, input=[maker[x] for x in node.input if x in maker])
            maker |= dict.fromkeys(node.output, name)
        self._add(wall_time=moment, graph_def=definition.SerializeToString())

    def _write_hparams(self, moment: float, record: Record) -> None:
        """The recipe beside the final scores, on the page HPARAMS."""
        from tensorboard.plugins.hparams import summary_v2

        values = {
            name: value if isinstance(value, bool | int | float) else str(value) for name, value in self._params.items()
        }
        metrics = [summary_v2.Metric(name) for name in (*record["scores"], "val_accuracy")]
        config = summary_v2.hparams_config_pb(
            hparams=[summary_v2.HParam(name) for name in values], metrics=metrics, time_created_secs=moment
        )
        session = summary_v2.hparams_pb(values, trial_id=self._run_folder.name, start_time_secs=self._started)
        for summary in (config, session):
            self._add(wall_time=moment, step=0, summary=self._summary.FromString(summary.SerializeToString()))


def _after(log_folder: Path) -> int:
    """The time now; if the clock was set back since, one that is later than those of the files that are there."""
    times = (path.name.removeprefix(PREFIX).partition(".")[0] for path in log_folder.glob(f"{PREFIX}*"))
    return max([int(time.time()), *(int(found) + 1 for found in times if found.isdigit())])
