"""Records -> MLflow. Every call may be made again: what is there already stays one.

A run is found by its tag `fmnist.run_id`; a metric point with the same time and value is the same point; files are
replaced; the model and its version are looked for before they are made.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fmnist.errors import Failure
from fmnist.files import file_of, make_folder, sha256_of, sync_tree, write_whole
from fmnist.registry import CHAMPION, RUN_ID_TAG, make_database  # its import also sets how patient MLflow is
from fmnist.tracking.fetching import CHECKPOINT, check_holder
from fmnist.tracking.journal import Record
from fmnist.tracking.pictures import matrix_files, report_files
from fmnist.tracking.records import decode, model_of


class MlflowSink:
    """One run in MLflow."""

    starts_anew = False
    source = "fmnist train"
    """The command that is shown for it."""

    def __init__(self, folder: Path, uri: str, experiment: str, model_name: str, artifact_root: Path) -> None:
        """`folder`: of the run. `artifact_root`: where the experiment keeps files if it must be made on a database."""
        import mlflow
        import mlflow.onnx  # needed at the end, when somebody waits

        make_database(uri)  # before any client of MLflow's: it would make the database itself
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        self._mlflow = mlflow
        self._client: Any = mlflow.MlflowClient()
        self._folder, self._experiment_name, self._model_name = folder, experiment, model_name
        self._artifact_root = None if uri.startswith("http") else artifact_root.resolve().as_uri()
        self.is_empty = self._ended = self._keeps_checkpoint = False
        self._experiment: str | None = None
        self._run: str | None = None
        self._names: list[str] = []
        self._facts: dict[str, str] = {}
        self._checkpoint = self._latest = 0  # of the one that was sent, nanoseconds; of what was sent, milliseconds

    @property
    def there(self) -> str | None:
        return self._run

    def send(self, record: Record) -> None:
        """Raises whatever MLflow raises; the record may be sent again."""
        self._latest = _milliseconds(record)
        if record["key"] == "start":
            self._start(record)
        elif record["key"] == "end":
            self._end(record)
        else:
            self._epoch(record)

    def _start(self, record: Record) -> None:
        self._names, self._facts = record["data"]["class_names"], record["facts"]
        self._experiment = self._find_experiment()
        self._run = self._find_run(record["run_id"])
        self.is_empty = self._run is None
        if self._run is None:
            self._run = self._create_run(record)
        self._keeps_checkpoint = not self.is_empty and bool(self._client.list_artifacts(self._run, CHECKPOINT))
        entities = self._mlflow.entities
        self._client.update_run(self._run, "RUNNING")
        params = [entities.Param(name, str(value)) for name, value in record["params"].items()]
        self._client.log_batch(self._run, params=params)
        data = record["data"]
        source = json.dumps({"source": data["source"], "sha256": data["digest"]})
        dataset = entities.Dataset(data["name"], data["digest"][:36], "fmnist", source)
        tag = entities.InputTag("mlflow.data.context", "training")
        self._client.log_inputs(self._run, [entities.DatasetInput(dataset, [tag])])

    def _find_experiment(self) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment_name)
        if experiment is None:
            with _is_no_error_if_there():  # another run may have been quicker
                self._client.create_experiment(self._experiment_name, self._artifact_root)
            experiment = self._client.get_experiment_by_name(self._experiment_name)
        if experiment.lifecycle_stage != "active":
            raise Failure(
                f"experiment {self._experiment_name!r}",
                "was deleted in MLflow; restore it there, or set MLFLOW_EXPERIMENT_NAME to another",
            )
        location = experiment.artifact_location
        place = file_of(location)
        elsewhere = location.startswith("file:") and self._artifact_root not in (None, location)
        if elsewhere and place and not place.exists():  # MLflow would make it again, where nobody looks
            raise Failure(
                f"experiment {self._experiment_name!r}",
                f"keeps its files in {place}, which is gone; move the workspace back there, "
                "or set MLFLOW_EXPERIMENT_NAME to another",
            )
        return str(experiment.experiment_id)

    def _find_run(self, run_id: str) -> str | None:
        found = self._client.search_runs([self._experiment], f"tags.`{RUN_ID_TAG}` = '{run_id}'", max_results=1)
        check_holder(self._folder, found[0].data.tags if found else {})
        return str(found[0].info.run_id) if found else None

    def _create_run(self, record: Record) -> str:
        tags = {
            **record["tags"],  # first: none of them takes the place of one below
            RUN_ID_TAG: record["run_id"],
            "mlflow.user": record["facts"].get("user"),
            "mlflow.source.name": self.source,
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": record["facts"].get("code"),
            "fmnist.name": record["name"],
            "mlflow.note.content": record["note"],
            **{f"fmnist.{name}": value for name, value in record["facts"].items()},
        }
        given = {key: value for key, value in tags.items() if value is not None}
        run = self._client.create_run(self._experiment, _milliseconds(record), given, record["run_id"])
        return str(run.info.run_id)

    def _epoch(self, record: Record) -> None:
        if record.get("workers", 1) > 1 or self._keeps_checkpoint:
            self._log_checkpoint()  # first: whoever goes on with it has the very record that is sent below
        self._log_scores(record, record["epoch"])
        self._log_confusion(record, f"validation/epoch_{record['epoch']:03}")

    def _log_checkpoint(self) -> None:
        """What another machine goes on with if this one is lost; by now it may be of a later epoch."""
        path = self._folder / "checkpoint"
        if path.exists() and (written := path.stat().st_mtime_ns) != self._checkpoint:  # gc may have freed it
            for name in ("config.json", path.name):
                self._client.log_artifact(self._run, str(self._folder / name), CHECKPOINT)
            self._checkpoint = written

    def _log_scores(self, record: Record, step: int) -> None:
        metric, moment = self._mlflow.entities.Metric, _milliseconds(record)
        points = [metric(name, value, moment, step) for name, value in record["scores"].items()]
        self._client.log_batch(self._run, metrics=points)

    def _log_confusion(self, record: Record, name: str) -> None:
        self._log_files("confusion_matrix", matrix_files(name, record, self._names))

    def _log_files(self, place: str, files: dict[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(self._run, folder, place)

    def _end(self, record: Record) -> None:
        self._log_scores(record, record["epochs"])
        self._log_confusion(record, "test")
        report = report_files(record, self._names)
        self._log_files("report", report)
        model = self._log_model(record)
        self._register(record, model)
        self._settle(self._client.get_logged_model(model.removeprefix("models:/")).artifact_location)
        self._client.set_terminated(self._run, "FINISHED", _milliseconds(record))
        self._ended = True
        for name, content in report.items():  # last: MLflow is not to lack anything where there is no room for these
            write_whole(make_folder(self._folder / "report") / name, content)

    def _settle(self, *addresses: str) -> None:
        """The run's files outlast a power cut, and those at `addresses`: in a folder, MLflow only writes them."""
        for address in (self._client.get_run(self._run).info.artifact_uri, *addresses):
            if (place := file_of(address)) and place.exists():
                sync_tree(place)

    def close(self, *, abandoned: bool) -> None:
        """A run that nobody trains any more is not shown as running: where it has no end, its last epoch is it."""
        if abandoned and self._run and not self._ended:
            self._client.set_terminated(self._run, "KILLED", self._latest)

    def _log_model(self, record: Record) -> str:
        """The model's address in MLflow."""
        path = model_of(self._folder, record)
        there = self._client.search_logged_models([self._experiment], f"source_run_id = '{self._run}'")
        for model in there:
            if model.tags.get("sha256") == record["model_sha256"] and str(model.status) == "READY":
                return str(model.model_uri)
        import onnx

        images = np.stack([decode(text) for text in record["golden"]["images"]])
        answers = np.asarray(record["golden"]["probabilities"], np.float32)
        with self._mlflow.start_run(run_id=self._run):
            info = self._mlflow.onnx.log_model(
                onnx.load(path),
                name="model",
                signature=self._mlflow.models.infer_signature(images, answers),
                input_example=images[:2],
                pip_requirements=[f"onnxruntime=={version('onnxruntime')}", f"onnx=={version('onnx')}", "numpy"],
                onnx_execution_providers=["CPUExecutionProvider"],
                save_as_external_data=False,
                tags={"sha256": record["model_sha256"], **self._whose()},
            )
        self._check_logged(info.model_uri, record)
        return str(info.model_uri)

    def _whose(self) -> dict[str, str]:
        """Whose model it is: without, MLflow takes whoever sends it, maybe on another machine."""
        names = {"mlflow.user": self._facts.get("user"), "mlflow.source.git.commit": self._facts.get("code")}
        return {"mlflow.source.name": self.source, **{name: value for name, value in names.items() if value}}

    def _check_logged(self, uri: str, record: Record) -> None:
        """Load the model back: what MLflow keeps must be what the run ended with."""
        with tempfile.TemporaryDirectory() as folder:
            local = self._mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
            digest = sha256_of(Path(local) / "model.onnx")
        if digest != record["model_sha256"]:
            raise Failure(
                uri, f"was stored with the SHA-256 {digest[:12]}, not {record['model_sha256'][:12]}; sync again"
            )

    def _register(self, record: Record, uri: str) -> None:
        with _is_no_error_if_there():
            self._client.create_registered_model(self._model_name)
        versions = self._client.search_model_versions(f"name = '{self._model_name}' and run_id = '{self._run}'")
        if versions:
            registered = versions[0]
        else:
            scores = {**{f"val_{name}": value for name, value in record["val"].items()}, **record["scores"]}
            tags = {"sha256": record["model_sha256"], "golden": "report/golden.json", RUN_ID_TAG: self._folder.name}
            tags |= {name: f"{value:.6f}" for name, value in scores.items()}
            model_id = uri.removeprefix("models:/")  # a server wants it apart, a database does not
            registered = self._client.create_model_version(self._model_name, uri, self._run, tags, model_id=model_id)
        if not self._client.get_registered_model(self._model_name).aliases.get(CHAMPION):
            self._client.set_registered_model_alias(self._model_name, CHAMPION, registered.version)


@contextmanager
def _is_no_error_if_there() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _milliseconds(record: Record) -> int:
    return int(record["time"] * 1000)
