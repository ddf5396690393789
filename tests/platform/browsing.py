"""A service to look at, and a browser to look with."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import requests
from playwright.sync_api import Error, expect, sync_playwright

PICTURES = Path(__file__).parents[2] / "var" / "screenshots"
PATIENCE = 60_000  # milliseconds; a busy machine is no fault


class Service:
    """`fmnist serve` on a port of its own."""

    def __init__(self, home: Path, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as held:
            self.port = held.getsockname()[1]
        self.address, self.home = f"http://localhost:{self.port}", home
        given = {name: value for name, value in os.environ.items() if not name.startswith(("FMNIST_", "MLFLOW_"))}
        self.environment = given | {"FMNIST_HOME": str(home), "FMNIST_POLL_SECONDS": "0.2", **settings}
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "fmnist", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=self.environment, stderr=subprocess.DEVNULL)
        while True:
            assert self.process.poll() is None
            try:
                requests.get(f"{self.address}/docs", timeout=20).raise_for_status()
                return
            except (requests.ConnectionError, requests.Timeout):
                time.sleep(0.05)

    def fmnist(self, *arguments: str) -> None:
        command = [sys.executable, "-P", "-m", "fmnist", *arguments]
        subprocess.run(command, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextmanager
def chromium() -> Iterator[Any]:
    """Headless: this machine's, or Debian's."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        install = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null"
        lock = "/var/tmp/fmnist-apt.lock"  # another process may install the engine, or this, at the same time
        subprocess.run(["flock", lock, "sh", "-c", install], check=True)
        found = shutil.which("chromium")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=flags.split())
        yield running
        running.close()


@contextmanager
def opened(browser: Any, service: Service, **options: Any) -> Iterator[Any]:
    """The service's page; in the end it has complained of nothing, and asked nobody but the service."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda sent: sent.url.startswith(f"{service.address}/") or complaints.append(sent.url))
    show(page, service.address, "document.documentElement.dataset.service")
    try:
        yield page
    finally:
        context.close()
    # that a request was refused or not answered, the browser itself says
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []


def show(page: Any, address: str, sign: str) -> None:
    """Open it. Until its scripts run, `sign` isn't true: where a container starts beside it, Chromium drops what it is
    just connecting (net::ERR_NETWORK_CHANGED), and fetches no script again."""
    for left in reversed(range(5)):
        try:
            page.goto(address)
            page.wait_for_function(sign, timeout=PATIENCE / 3)
            return
        except Error:
            if not left:
                raise


def see(page: Any, place: str, text: str) -> None:
    try:
        expect(page.locator(place)).to_contain_text(text, timeout=PATIENCE)
    except AssertionError as error:  # what else it tells is the reason, mostly
        told = [page.locator(other).all_inner_texts() for other in ("#complaint", "#notices")]
        raise AssertionError(f"{error}\nthe page tells: {told}") from None


def keep(page: Any, name: str) -> None:
    page.screenshot(path=PICTURES / f"service_{name}.png")


def draw(page: Any, points: list[tuple[int, int]]) -> None:
    box = page.locator("#board").bounding_box()
    places = [(box["x"] + box["width"] * x / 252, box["y"] + box["height"] * y / 252) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()
