"""What MLflow knows of runs: which are deleted there, and which a registered version comes from.

To delete a run there is to mark it: its files and rows stay until somebody deletes them for good. MLflow has that for
whoever holds its database, not over its API.
"""

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fmnist.errors import Failure
from fmnist.files import file_of
from fmnist.registry import RUN_ID_TAG, Registry
from fmnist.tracking.elsewhere import all_pages

DELETED = "deleted"
MILLISECONDS = 1000
PAGE = 1000
ID_LENGTH = 32
"""Of MLflow's ids, without the `m-` of a model's: letters and digits."""


@dataclass(frozen=True)
class DeletedRun:
    """A run that was marked as deleted long enough ago, and that no version comes from."""

    mlflow_id: str
    run_id: str
    """fmnist's id; no run's folder need have that name."""
    files: tuple[str, ...]
    """Addresses: of its artifacts, and of its models'."""
    models: tuple[str, ...]
    """Ids of the models that MLflow keeps beside it."""


@dataclass(frozen=True)
class Ledger:
    """MLflow's answers, all of one moment. Runs go by fmnist's id."""

    registry: Registry
    deleted: list[DeletedRun]
    spared: int
    """Runs that were deleted, and are kept: a version comes from them."""
    alive: frozenset[str]
    """Runs that are not deleted."""
    known: frozenset[str]
    """All runs, deleted or not."""
    registered: frozenset[str]
    """Runs that a version comes from, of whatever model."""
    digests: frozenset[str]
    """SHA-256 of all versions."""
    holds_database: bool
    """Whether runs can be deleted for good from here."""
    endangered: frozenset[str]
    """Runs that a version comes from, in a deleted experiment: `mlflow gc` would delete them with it."""

    def confirm(self, run: DeletedRun) -> None:
        """Raise Failure where the run was restored or registered since."""
        with self.registry.client() as client:
            stage = client.get_run(run.mlflow_id).info.lifecycle_stage
            named = [f"source_path LIKE '%{name}%'" for name in (run.mlflow_id, *run.models)]
            asked = (f"run_id = '{run.mlflow_id}'", *named)
            if stage != DELETED or any(client.search_model_versions(one, max_results=1) for one in asked):
                raise Failure(f"run {run.run_id}", "was restored or registered meanwhile; it is left as it is")

    def size(self, run: DeletedRun) -> int:
        """Bytes of its files in MLflow."""
        with self.registry.client():
            return sum(_size(self._files_at(address)) for address in run.files)

    def forget(self, run: DeletedRun) -> None:
        """Delete it for good, its mark last: what is killed meanwhile is found again."""
        with self.registry.client() as client:
            for address in run.files:
                self._files_at(address).delete_artifacts()
                if place := file_of(address):
                    with suppress(OSError):  # the folder around it, which is not always its own
                        place.parent.rmdir()
            store = _store(client)
            for model in run.models:
                store._hard_delete_logged_model(model)
            store._hard_delete_run(run.mlflow_id)

    def _files_at(self, address: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(address, self.registry.uri, self.registry.uri)


def read_ledger(registry: Registry, days: int) -> Ledger:
    """Ask MLflow; what was deleted less than `days` ago is not told. Raises Failure or UserError."""
    with registry.client() as client:
        from mlflow.entities import ViewType

        experiments = list(all_pages(client.search_experiments, view_type=ViewType.ALL))
        ids = [experiment.experiment_id for experiment in experiments]
        found = list(all_pages(client.search_runs, ids, run_view_type=ViewType.ALL)) if ids else []
        runs = [run for run in found if RUN_ID_TAG in run.data.tags]
        versions = list(all_pages(client.search_model_versions))
        models = _models_by_run(client, ids)
        old = _deleted_before(client, runs, days)
        holds_database = hasattr(_store(client), "_hard_delete_run")
    named = {version.tags.get(RUN_ID_TAG, "") for version in versions}
    reach = _Reach(f"{version.run_id} {version.model_id} {version.source}" for version in versions)

    def is_registered(run: Any) -> bool:
        own = [run.info.run_id, *(model.model_id for model in models.get(run.info.run_id, []))]
        return _id(run) in named or any(name in reach for name in own)

    registered = [run for run in runs if is_registered(run)]
    kept = {run.info.run_id for run in registered}
    gone = {experiment.experiment_id for experiment in experiments if experiment.lifecycle_stage == DELETED}
    return Ledger(
        registry,
        deleted=[_deleted(run, models) for run in runs if run.info.run_id in old - kept],
        spared=len(old & kept),
        alive=frozenset(_id(run) for run in runs if run.info.lifecycle_stage != DELETED),
        known=frozenset(map(_id, runs)),
        registered=frozenset(named | set(map(_id, registered))),
        digests=frozenset(version.tags.get("sha256", "") for version in versions),
        holds_database=holds_database,
        endangered=frozenset(_id(run) for run in registered if run.info.experiment_id in gone),
    )


class _Reach:
    """What versions point to: whether an id, which is long and random, is named anywhere in it."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._text = " ".join(texts)
        self._words = set(re.findall(r"[0-9A-Za-z]+", self._text))
        self._long = " ".join(word for word in self._words if len(word) > ID_LENGTH)

    def __contains__(self, name: str) -> bool:
        bare = name.removeprefix("m-")
        if len(bare) != ID_LENGTH or not (bare.isascii() and bare.isalnum()):
            return name in self._text
        return bare in self._words or bare in self._long  # the text is megabytes, and ids are thousands


def _id(run: Any) -> str:
    return str(run.data.tags[RUN_ID_TAG])


def _store(client: Any) -> Any:
    return client._tracking_client.store


def _models_by_run(client: Any, experiments: list[str]) -> dict[str, list[Any]]:
    """The models that MLflow keeps, by the run that logged them; deleted ones too, where it can be asked for those."""
    store = _store(client)
    found = list(all_pages(client.search_logged_models, experiments, max_results=PAGE)) if experiments else []
    if hasattr(store, "_get_deleted_logged_models"):
        found += [store.get_logged_model(name, allow_deleted=True) for name in store._get_deleted_logged_models()]
    models: dict[str, list[Any]] = {}
    for model in found:
        models.setdefault(model.source_run_id, []).append(model)
    return models


def _deleted_before(client: Any, runs: list[Any], days: int) -> set[str]:
    """MLflow's ids of the runs that were deleted `days` ago. A server does not tell when: there it is the run's end."""
    span, store = days * 24 * 60 * 60 * MILLISECONDS, _store(client)
    deleted = [run.info for run in runs if run.info.lifecycle_stage == DELETED]
    if hasattr(store, "_get_deleted_runs"):
        return set(store._get_deleted_runs(older_than=span)) & {info.run_id for info in deleted}
    latest = time.time() * MILLISECONDS - span
    return {info.run_id for info in deleted if (info.end_time or info.start_time or latest) <= latest}


def _deleted(run: Any, models: dict[str, list[Any]]) -> DeletedRun:
    own = models.get(run.info.run_id, [])
    files = (run.info.artifact_uri, *(model.artifact_location for model in own))
    return DeletedRun(run.info.run_id, _id(run), files, tuple(model.model_id for model in own))


def _size(files: Any, path: str | None = None) -> int:
    return sum(_size(files, one.path) if one.is_dir else one.file_size or 0 for one in files.list_artifacts(path))
