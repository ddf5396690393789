"""What `/metrics` tells, in Prometheus's form."""

import platform
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from fmnist.serve.keeper import Keeper
from fmnist.serve.web import Response

REGISTRY = CollectorRegistry()
if platform.system() == "Linux":
    ProcessCollector(registry=REGISTRY)

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
REQUESTS = Counter("fmnist_requests", "Requests answered", ["route", "code"], registry=REGISTRY)
SECONDS = Histogram(
    "fmnist_request_seconds",
    "From a request's headers to its answer",
    ["route"],
    buckets=_BUCKETS,
    registry=REGISTRY,
)
BATCH_SIZES = Histogram(
    "fmnist_batch_images",
    "Images that the model answered at once",
    buckets=(1, 2, 4, 8, 16, 32, 64, 256, 1024),
    registry=REGISTRY,
)
QUEUED = Gauge("fmnist_queue_images", "Images that wait for the model", registry=REGISTRY)
IN_FLIGHT = Gauge("fmnist_requests_in_flight", "Requests that are being answered", registry=REGISTRY)
_MODEL = Gauge("fmnist_model_info", "The model that answers: always 1", ["version", "sha256"], registry=REGISTRY)
_SWAPS = Gauge("fmnist_model_swaps", "How often a new model took over", registry=REGISTRY)
_REFUSALS = Gauge("fmnist_model_refusals", "How many new models were refused", registry=REGISTRY)
_REGISTRY_UP = Gauge("fmnist_registry_up", "Whether the registry answers, and names a model: 1 or 0", registry=REGISTRY)
_FROM_CACHE = Gauge("fmnist_model_from_cache", "Whether the model was kept from before a restart", registry=REGISTRY)


@cache
def _count_of(route: str, status: int) -> Counter:
    return REQUESTS.labels(route, status)


@cache
def _seconds_of(route: str) -> Histogram:
    return SECONDS.labels(route)


def count(route: str, status: int, seconds: float) -> None:
    """A request that was answered."""
    _count_of(route, status).inc()
    _seconds_of(route).observe(seconds)


def exposition(keeper: Keeper) -> Response:
    """Everything, as text."""
    _MODEL.clear()
    if keeper.model:
        _MODEL.labels(keeper.model.version, keeper.model.release.sha256).set(1)
    _SWAPS.set(keeper.swaps)
    _REFUSALS.set(keeper.refusals)
    _REGISTRY_UP.set(keeper.trouble is None)
    _FROM_CACHE.set(keeper.from_cache)
    return Response(200, generate_latest(REGISTRY), b"text/plain; version=0.0.4; charset=utf-8")
