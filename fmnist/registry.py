"""The trained models in MLflow's registry: versions, and the aliases `champion` and `previous`."""

import math
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from fmnist.errors import Failure, UserError, no_room, one_line
from fmnist.files import held_lock, make_folder, scratch_folder, sha256_of
from fmnist.run import RUN_ID
from fmnist.scores import Scores

CHAMPION = "champion"
PREVIOUS = "previous"
RUN_ID_TAG = "fmnist.run_id"
PROBE_SECONDS = 5
MOST_VERSIONS = 200_000  # that MLflow tells at once
_SQLITE = "sqlite:///"

# An absent server is told within seconds. Read at MLflow's import; what a user has set stands.
for _name, _value in {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # it would repeat what makes a run, too: who tries again looks first
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server in front of a bucket passes files through: only it may reach the bucket.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}.items():
    os.environ.setdefault(_name, _value)


def database_file(uri: str) -> Path | None:
    """The file, where MLflow is a SQLite database."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def is_number(reference: str) -> bool:
    """Whether it is a version's number. A run's id begins with the date, eight digits: fewer are a version."""
    return reference.isdigit() and len(reference) < 8


def names_version(reference: str) -> bool:
    """Whether it names a version, and not a run or a file."""
    return reference in (CHAMPION, PREVIOUS) or reference.startswith("models:/") or is_number(reference)


def split_address(reference: str, name: str) -> tuple[str, str]:
    """models:/NAME@ALIAS or models:/NAME/NUMBER -> (NAME, the rest); what is no such address is of the model `name`."""
    if not reference.startswith("models:/"):
        return name, reference
    path = reference.removeprefix("models:/")
    name, _, wanted = path.partition("@" if "@" in path else "/")
    return name, wanted


def scores_of(tags: Mapping[str, str]) -> dict[str, float]:
    """val_accuracy, test_f1 and so on, from a version's tags."""
    scores = {}
    for name in (f"{split}_{score}" for split in ("val", "test") for score in Scores._fields):
        with suppress(KeyError, ValueError):  # anybody may change a tag in MLflow
            scores[name] = float(tags[name])
    return scores


def make_database(uri: str) -> None:
    """Make MLflow's SQLite database where there is none yet: whole or not at all, and one process alone.

    MLflow itself makes it table by table; killed meanwhile, it never opens it again.
    """
    path = database_file(uri)
    if path is None or path.exists():
        return
    with held_lock(make_folder(path.parent) / f"{path.stem}.lock", f"process {os.getpid()}", patience=math.inf):
        if not path.exists():
            with scratch_folder(path.parent) as scratch:
                import mlflow

                made = scratch / path.name
                mlflow.MlflowClient(f"{_SQLITE}{made}").search_experiments(max_results=1)
                files = (path.resolve().parent / "artifacts" / "0").as_uri()  # MLflow takes the current folder
                with closing(sqlite3.connect(made)) as connection, connection:
                    connection.execute("UPDATE experiments SET artifact_location = ?", (files,))
                made.replace(path)


@dataclass(frozen=True)
class Version:
    """A registered model."""

    number: int
    run_id: str
    """fmnist's id of the run that trained it."""
    aliases: tuple[str, ...]
    sha256: str
    created: float
    """Unix time."""
    scores: dict[str, float]
    """val_accuracy, test_f1 and so on."""
    source: str
    """Its address in MLflow."""


class Registry:
    """The versions of one registered model."""

    def __init__(self, uri: str, name: str) -> None:
        self.uri, self.name = uri, name

    @property
    def is_empty_place(self) -> bool:
        """Whether the database is not even there: nothing has been tracked yet."""
        path = database_file(self.uri)
        return path is not None and not path.exists()

    def versions(self, where: str = "", most: int = MOST_VERSIONS) -> list[Version]:
        """The versions, oldest first: all, or of those for which MLflow's filter `where` holds the `most` newest.

        Raises Failure where MLflow does not answer.
        """
        if self.is_empty_place:
            return []
        with self.client() as client:
            chosen, newest = f"name = '{self.name}'{where}", ["version_number DESC"]
            found = client.search_model_versions(chosen, max_results=most, order_by=newest)
            aliases = self._aliases(client) if found else {}
        return sorted((_version(values, aliases) for values in found), key=lambda version: version.number)

    def _aliases(self, client: Any) -> dict[str, str]:
        models = client.search_registered_models(f"name = '{self.name}'", max_results=1)  # not all of its versions
        return dict(models[0].aliases) if models else {}

    def find(self, reference: str) -> Version:
        """By alias, number, run id, or address (models:/NAME@ALIAS, models:/NAME/NUMBER). Raises UserError."""
        name, wanted = split_address(reference, self.name)
        if name == self.name and (version := self.look_up(wanted)):
            return version
        numbers = [str(version.number) for version in self.versions()]
        there = ", ".join(numbers if len(numbers) < 20 else [*numbers[:3], "…", *numbers[-3:]]) or "none yet"
        raise UserError(
            f"model {reference!r}", f"there is no such version of {self.name} (there are: {there}); see fmnist models"
        )

    def look_up(self, wanted: str) -> Version | None:
        """By alias, number or run id: alone, however many there are."""
        if self.is_empty_place or not wanted:
            return None
        if RUN_ID.fullmatch(wanted):
            found = self.versions(f" and tags.`{RUN_ID_TAG}` = '{wanted}'")
        else:
            with self.client() as client:
                number = wanted if is_number(wanted) else self._aliases(client).get(wanted, 0)
            found = self.versions(f" and version_number = {number}")
        return found[0] if found else None

    def has_champion(self) -> bool:
        return self.look_up(CHAMPION) is not None

    def promote(self, reference: str) -> Version:
        """Make a version the champion, and remember the one before as `previous`. Again changes nothing."""
        version = self.find(reference)
        if CHAMPION not in version.aliases:
            with tempfile.TemporaryDirectory() as folder:
                self._download(version, Path(folder))  # it has its model
            before = self.look_up(CHAMPION)
            with self.client() as client:
                if before:
                    client.set_registered_model_alias(self.name, PREVIOUS, str(before.number))
                client.set_registered_model_alias(self.name, CHAMPION, str(version.number))
        return self.find(str(version.number))

    def rollback(self) -> Version:
        """Make `previous` the champion again. Again changes nothing. Raises UserError where there is none."""
        if (before := self.look_up(PREVIOUS)) is None:
            raise UserError("rollback", "there is no previous champion; choose a version: fmnist promote VERSION")
        with self.client() as client:
            client.set_registered_model_alias(self.name, CHAMPION, str(before.number))
        return self.find(CHAMPION)

    def fetch(self, version: Version, cache: Path) -> Path:
        """The version's ONNX file, kept in the folder `cache` by its hash. Raises Failure where it is not whole."""
        kept = cache / f"{version.sha256}.onnx"
        if not kept.exists() or sha256_of(kept) != version.sha256:
            with scratch_folder(make_folder(cache)) as folder:
                self._download(version, folder).replace(kept)
        return kept

    def _download(self, version: Version, folder: Path) -> Path:
        with self.client() as client:
            import mlflow

            # Not the version's own models:/ address: MLflow looks that up at its default place.
            place = client.get_model_version_download_uri(self.name, str(version.number))
            local = mlflow.artifacts.download_artifacts(place, dst_path=str(folder), tracking_uri=self.uri)
        path = Path(local) / "model.onnx"
        if not path.is_file() or sha256_of(path) != version.sha256:
            raise Failure(
                f"{self.name} version {version.number}",
                "its file in MLflow is not the one that was registered (SHA-256 differs); choose another version",
            )
        return path

    @contextmanager
    def client(self) -> Iterator[Any]:
        """MLflow's client; what goes wrong with it is a Failure that names the address."""
        self.probe()
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield mlflow.MlflowClient(self.uri, self.uri)  # not set_tracking_uri: that changes the environment
        except (MlflowException, SQLAlchemyError, OSError) as error:
            problem = no_room(error) or f"{one_line(error)[:200]}; see whether it is in order"
            raise Failure(f"MLflow at {self.uri}", problem) from error

    def probe(self) -> None:
        """An address that does not answer, or is not MLflow's, is told at once. Raises Failure or UserError."""
        if urlparse(self.uri).scheme not in ("http", "https"):
            return
        import requests

        try:
            answer = requests.get(f"{self.uri.rstrip('/')}/version", timeout=PROBE_SECONDS)
        except requests.RequestException as error:
            raise Failure(
                f"MLflow at {self.uri}", "does not answer; start it, or set MLFLOW_TRACKING_URI to where it is"
            ) from error
        if answer.status_code in (401, 403):  # it is there, and MLflow's client has the password
            return
        if answer.status_code != 200 or not answer.text[:1].isdigit():
            raise UserError(
                f"MLflow at {self.uri}", f"answers {answer.status_code}, not as MLflow does; set MLFLOW_TRACKING_URI"
            )


def _version(values: Any, aliases: Mapping[str, str]) -> Version:
    tags, number, created = values.tags, int(values.version), values.creation_timestamp / 1000
    own = tuple(sorted(alias for alias, of in aliases.items() if int(of) == number))
    run_id, digest = tags.get(RUN_ID_TAG, ""), tags.get("sha256", "")
    return Version(number, run_id, own, digest, created, scores_of(tags), values.source)
