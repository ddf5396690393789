"""The parts of the service, put together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fmnist.serve.app import App
from fmnist.serve.batcher import Batcher
from fmnist.serve.guard import Guard
from fmnist.serve.inference import Inference
from fmnist.serve.keeper import Keeper
from fmnist.serve.limits import Limits
from fmnist.serve.metrics import exposition
from fmnist.serve.pages import page_routes
from fmnist.serve.predict import Predict
from fmnist.serve.scoring import scoring_routes
from fmnist.serve.web import Request, Response, Route, Routes, as_json


@dataclass
class Service:
    """One model that answers, and every way to ask it."""

    keeper: Keeper
    model_name: str
    guard: Guard = field(default_factory=lambda: Guard(None))
    limits: Limits = field(default_factory=Limits)
    links: Mapping[str, str] = field(default_factory=dict)
    """What the page links to: name -> address."""
    log_share: float = 0.0

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.keeper, self.limits.queue)
        self.draining = False
        """Whether it takes leave: it answers, and is not ready."""
        self.app = App(self._routes(), self.guard, self.limits, self.log_share)

    def _routes(self) -> Routes:
        predict = Predict(self.batcher, self.limits, self.model_name)
        return {
            ("POST", "/predict"): Route(predict, "/predict"),
            ("GET", "/status"): Route(self._status, "/status"),
            ("GET", "/metrics"): Route(self._metrics, "/metrics"),
            **page_routes(self.model_name),
            **scoring_routes(self.batcher, self.limits),
            **Inference(self.keeper, self.batcher, self.limits, self.model_name, lambda: self.is_ready).routes(),
        }

    @property
    def is_ready(self) -> bool:
        return self.keeper.model is not None and not self.draining

    async def _status(self, request: Request) -> Response:
        return as_json(self.status())

    def status(self) -> dict[str, Any]:
        """What the page shows: the model, its scores, what is wrong."""
        keeper = self.keeper
        model, refusal = keeper.model, keeper.refusal
        about: dict[str, Any] | None = None
        if model:
            release = model.release
            about = {
                "version": release.version,
                "run_id": release.run_id,
                "mlflow_run": release.mlflow_run,
                "created": release.created,
                "sha256": release.sha256,
                "scores": release.scores or {},
                "class_names": model.class_names,
                "confusion": model.confusion,
                "from_cache": keeper.from_cache,
            }
        return {
            "name": self.model_name,
            "ready": self.is_ready,
            "looked": keeper.looked,
            "model": about,
            "absence": None if model else keeper.absence,
            "registry_trouble": keeper.trouble,
            "refusal": refusal._asdict() if refusal else None,
            "swaps": keeper.swaps,
            "links": dict(self.links),
            "limits": {"body": self.limits.body, "images": self.limits.images},
        }

    async def _metrics(self, request: Request) -> Response:
        return exposition(self.keeper)

    def close(self) -> None:
        self.keeper.stop()
        self.batcher.close()
