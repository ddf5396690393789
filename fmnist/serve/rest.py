"""MLflow's registry over its REST API. MLflow's own package isn't needed for it: it takes 200 MB and seconds."""

import base64
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlparse

from fmnist.errors import Failure, no_room, one_line
from fmnist.registry import CHAMPION, RUN_ID_TAG
from fmnist.serve.releases import PATIENCE, Absent, Release, described, gone, kind_of, local_file, parsed

LARGEST = 1 << 30
"""Bytes of a file that MLflow is believed."""


class RestSource:
    """A version in the registry of an MLflow server."""

    def __init__(self, uri: str, name: str, reference: str = CHAMPION) -> None:
        self._uri, self._name, self._reference = uri.rstrip("/"), name, reference
        parts = urlparse(self._uri)
        self._place = one_line(self._uri)
        self._headers = _authorization(parts.username, parts.password)
        if parts.username:
            self._uri = self._uri.replace(parts.netloc, parts.netloc.rpartition("@")[2])

    def find(self) -> Release | None:
        found = self._found()
        return None if found is None else described(found, {tag["key"]: tag["value"] for tag in found.get("tags", [])})

    def _found(self) -> dict[str, Any] | None:
        name, kind = self._name, kind_of(self._reference)
        if kind == "number":
            answer = self._api("model-versions/get", name=name, version=self._reference)
        elif kind == "run":
            wanted = f"name='{name}' and tags.`{RUN_ID_TAG}`='{self._reference}'"
            answer = self._api("model-versions/search", filter=wanted) or {}
            answer = {"model_version": next(iter(answer.get("model_versions", [])), None)}
        else:
            answer = self._api("registered-models/alias", name=name, alias=self._reference)
        found: dict[str, Any] | None = answer and answer["model_version"]
        return found

    def fetch(self, release: Release, folder: Path) -> Path:
        where = self._api("model-versions/get-download-uri", name=self._name, version=release.version)
        path: Path | None = self._file(where["artifact_uri"], "model.onnx", folder) if where else None
        if path is None:
            raise gone(self._name, release)
        return path

    def report(self, release: Release, name: str) -> Any:
        run = self._api("runs/get", run_id=release.mlflow_run)
        content = self._file(run["run"]["info"]["artifact_uri"], name) if run else None
        return None if content is None else parsed(content.read_bytes() if isinstance(content, Path) else content)

    def _file(self, root: str, name: str, folder: Path | None = None) -> Any:
        """An artifact: its bytes, or where a `folder` is given, its path. None where it isn't there."""
        parts = urlparse(root)
        if parts.scheme in ("", "file"):
            return local_file(root, name)
        if parts.scheme != "mlflow-artifacts":
            raise Failure(root, "is no place that MLflow serves files from; let its server proxy artifacts")
        address = f"/api/2.0/mlflow-artifacts/artifacts/{quote(parts.path.strip('/'))}/{quote(name)}"
        with self._opened(address) as answer:
            if answer is None:
                return None
            if folder is None:
                return answer.read(LARGEST)
            path = folder / Path(name).name
            try:
                with path.open("wb") as file:
                    shutil.copyfileobj(answer, file)
            except OSError as error:
                if full := no_room(error):  # here, not MLflow's
                    raise Absent(path, full) from error
                raise
            return path

    def _api(self, what: str, **query: str) -> Any:
        """MLflow's answer, None where it says that there is no such thing."""
        with self._opened(f"/api/2.0/mlflow/{what}?{urlencode(query)}") as answer:
            return None if answer is None else json.loads(answer.read(LARGEST))

    @contextmanager
    def _opened(self, path: str) -> Iterator[Any]:
        request = urllib.request.Request(self._uri + path, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            if not _says_missing(error):
                raise Absent(f"MLflow at {self._place}", f"answers {error.code}; see its log") from error
            yield None
        except (OSError, ValueError, HTTPException) as error:
            reason = one_line(getattr(error, "reason", error))[:120]
            raise Absent(f"MLflow at {self._place}", f"does not answer ({reason}); start it") from error


def _says_missing(error: urllib.error.HTTPError) -> bool:
    """Whether it is MLflow that answers, and has no such thing: an alias that isn't there gets a 400."""
    if error.code not in (400, 404):
        return False
    with suppress(ValueError, OSError, AttributeError):
        code = json.loads(error.read(10_000)).get("error_code")
        return code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
    return False


def _authorization(user: str | None, password: str | None) -> dict[str, str]:
    """As MLflow's own clients are told: in the address, or by variables."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user = unquote(user) if user else os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = unquote(password) if password else os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if not user:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password or ''}".encode()).decode()}
