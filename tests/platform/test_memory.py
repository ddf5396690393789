"""A service at its memory's limit: the kernel kills it, it comes back by itself, nothing acknowledged is lost.

The memory is filled through a file in the container's /tmp, which is memory, so that a restart empties it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .writers import Writer

pytestmark = pytest.mark.filterwarnings("ignore")

AFTER = 10
"""Writes that are acknowledged after the kill."""


@contextmanager
def filled(platform: Any, service: str) -> Iterator[None]:
    """Its memory, up to the limit, until it was restarted or for as long as this lasts."""
    before = platform.inspect(service)
    limit = before["HostConfig"]["Memory"]
    assert limit
    fill = ("sh", "-c", f"head -c {limit} /dev/zero >/tmp/fill")
    options = {"service": service, "check": False}
    threading.Thread(target=platform.inside, args=fill, kwargs=options, daemon=True).start()
    try:
        yield
    finally:
        platform.inside("rm", "-f", "/tmp/fill", **options)


def killed(platform: Any, service: str, before: dict[str, Any]) -> bool:
    now = platform.inspect(service)
    return bool(now["RestartCount"] > before["RestartCount"] or now["State"]["Pid"] != before["State"]["Pid"])


@pytest.mark.parametrize("service", ["mlflow", "postgres"])
def test_no_acknowledged_write_is_lost(platform: Any, service: str) -> None:
    made = platform.mlflow_post("runs/create", experiment_id="0", run_name=f"memory of {service}", start_time=1)
    writer = Writer(platform, made["run"]["info"]["run_id"], "metric")
    writer.start()
    platform.wait(lambda: writer.acknowledged > 3, "the first writes")
    before = platform.inspect(service)
    with filled(platform, service):
        platform.wait(lambda: killed(platform, service, before), f"{service} to be killed")
    enough = writer.acknowledged + AFTER
    platform.wait(lambda: writer.acknowledged >= enough, "MLflow to take writes again")
    writer.ending = True
    writer.join()
    assert set(range(1, writer.acknowledged + 1)) <= writer.steps
    platform.wait_until_healthy(service)


def test_the_service_answers_again_with_the_same_model(platform: Any) -> None:
    platform.inside(*platform.train_few(1))

    def model() -> Any:
        return platform.http.get(f"{platform.service}/status", timeout=60).json()["model"]

    known = platform.wait(model, "a champion")
    before = platform.inspect("api")
    with filled(platform, "api"):
        platform.wait(lambda: killed(platform, "api", before), "the service to be killed")
    platform.wait_until_healthy("api")
    platform.wait(lambda: model() == known, "the same model to answer, from the registry")
