"""Keeps the model that answers: notices a new one, examines it, puts it in the old one's place, keeps it on disk."""

import json
import logging
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from fmnist.errors import Failure, UserError, one_line
from fmnist.files import make_folder, read_sealed, write_sealed
from fmnist.serve.model import Model, load_model
from fmnist.serve.releases import Absent, Release, Source

log = logging.getLogger("fmnist.serve")
REFUSED_SECONDS = 60
"""After so long a refused model is looked at again: somebody may have mended it."""


class Refusal(NamedTuple):
    version: str
    reason: str
    time: float
    """Unix time."""


def _mark(release: Release) -> tuple[str, str]:
    """What tells two releases apart: a file keeps its name when another replaces it."""
    return release.version, release.sha256


class Keeper:
    """`model` is what answers now, None before there is any. Reading it needs no lock."""

    def __init__(self, source: Source, cache: Path | None, interval: float = 2, missing: str = "no model") -> None:
        """`cache`: a folder in which the model outlasts a restart. `interval`: seconds between two looks.
        `missing`: what to say where the source has none.
        """
        self._missing = missing
        self._source, self._cache, self._interval = source, cache, interval
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look_again_and_again, daemon=True, name="keeper")
        self.model: Model | None = None
        self.trouble: str | None = None
        """Why the registry can't be asked now."""
        self.refusal: Refusal | None = None
        self._refused: tuple[str, str] | None = None
        self.swaps = self.refusals = 0
        self.from_cache = False
        self.looked = False
        """Whether it has looked once, so that no model means that there is none."""

    @property
    def absence(self) -> str:
        """Why there is no model, and what to do."""
        if not self.looked:
            return "the model is being loaded; try again in a second"
        return self.trouble or (self.refusal.reason if self.refusal else self._missing)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()

    def _look_again_and_again(self) -> None:
        while not self._ending.is_set():
            self.look()
            self.looked = True
            self._ending.wait(self._interval)

    def look(self) -> None:
        """Look once, and take over what is new."""
        try:
            release = self._source.find()
            if release is not None and not self._is_known(release):
                self._take_over(release)
            self._tell(None if release or self.model is None else "the registry names no champion any more")
        except (Absent, UserError) as error:
            self._tell(str(error))
        except Exception as error:  # whatever it is, the model that there is goes on answering
            told = f"looking for a new model failed ({type(error).__name__}: {one_line(error)[:120]}); see the log"
            if told != self.trouble:
                log.exception("looking for a new model failed")
            self._tell(told)
        if self.model is None and (self.trouble or self.refusal):
            self._remember()

    def _is_known(self, release: Release) -> bool:
        now, refused = self.model, self.refusal
        if now and _mark(now.release) == _mark(release):
            self.from_cache = False  # the registry itself names it
            self.refusal = None
            return True
        return bool(refused and self._refused == _mark(release) and time.time() - refused.time < REFUSED_SECONDS)

    def _take_over(self, release: Release) -> None:
        try:
            model = self._loaded(release)
        except Absent:
            raise
        except (Failure, UserError) as error:
            first = self.refusal is None or self._refused != _mark(release)
            self.refusal, self._refused = Refusal(release.version, str(error), time.time()), _mark(release)
            if first:
                self.refusals += 1
                log.error("a model is refused", extra={"version": release.version, "reason": str(error)})
            return
        before, self.refusal, self.from_cache, self.model = self.model, None, False, model
        self.swaps += before is not None
        log.info("a model answers", extra={"version": release.version, "before": before and before.version})

    def _loaded(self, release: Release) -> Model:
        golden, confusion = None, self._source.report(release, "confusion_matrix/test.json")
        if release.has_golden:
            golden = self._source.report(release, "report/golden.json")
        matrix = confusion.get("rows_true_columns_predicted") if isinstance(confusion, dict) else None
        with tempfile.TemporaryDirectory() as folder:
            path = self._source.fetch(release, Path(folder))
            model = load_model(release, path, golden, matrix)
            if self._cache is not None:
                self._keep(release, path.read_bytes(), golden, matrix)
        return model

    def _keep(self, release: Release, content: bytes, golden: Any, matrix: Any) -> None:
        """For a start without the registry. What can't be kept is no reason not to answer."""
        assert self._cache is not None
        about = {"release": asdict(release), "golden": golden, "confusion": matrix}
        try:
            write_sealed(make_folder(self._cache) / f"{release.sha256}.onnx.sealed", content)
            write_sealed(self._cache / "last.json", json.dumps(about).encode())
            for old in self._cache.glob("*.onnx.sealed"):
                if old.name != f"{release.sha256}.onnx.sealed":
                    old.unlink()
        except (OSError, Failure, UserError) as error:
            log.warning("the model is not kept for a restart", extra={"reason": str(error)})

    def _remember(self) -> None:
        """Load what answered before the restart."""
        if self._cache is None or not (self._cache / "last.json").exists():
            return
        try:
            about = json.loads(read_sealed(self._cache / "last.json"))
            release = Release(**about["release"])
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                path.write_bytes(read_sealed(self._cache / f"{release.sha256}.onnx.sealed"))
                model = load_model(release, path, about["golden"], about["confusion"])
        except (Failure, UserError, OSError, ValueError, TypeError, KeyError) as error:
            log.error("the model that was kept can't be used", extra={"reason": str(error)})
            return
        self.from_cache, self.model = True, model  # in this order: others look meanwhile
        log.warning("a kept model answers", extra={"version": release.version})

    def _tell(self, trouble: str | None) -> None:
        if (trouble is None) != (self.trouble is None):
            log.warning("the registry is away" if trouble else "the registry is back", extra={"reason": trouble})
        self.trouble = trouble
