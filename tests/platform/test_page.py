"""The service's page in a browser: a real service, a real registry, a model that knows garments.

What the browser saw is kept in `var/screenshots` of the checkout, to be looked at.
"""

import dataclasses
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from playwright.sync_api import expect

from fmnist.data import find_data
from fmnist.data.dataset import Dataset, Split
from fmnist.data.sources import find_local
from fmnist.predictor import Predictor
from fmnist.recipe import TrainConfig
from fmnist.registry import Registry
from fmnist.run import Run
from fmnist.tracking.journal import Journal
from fmnist.tracking.mlflow_sink import MlflowSink

from ..helpers import train_with_journal
from .browsing import PATIENCE, Service, chromium, draw, keep, opened, see, show

ROOT = Path(__file__).parents[2]
NAME, KEY = "fashion-mnist", "0123456789abcdef"
TROUSERS = [(90, 30), (165, 30), (178, 225), (142, 225), (127, 90), (112, 225), (76, 225), (90, 30)]  # of 252 x 252
SMALL = """\
from torch import nn

def small(classes, dropout):
    first, second = nn.Conv2d(1, 16, 4, stride=2), nn.Conv2d(16, 32, 3, stride=2)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, classes))
"""

pytestmark = pytest.mark.filterwarnings("ignore")


def some(split: Split, count: int) -> Split:
    chosen = np.linspace(0, len(split) - 1, count).astype(int)
    return dataclasses.replace(split, images=split.images[chosen], labels=split.labels[chosen])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One pass of a small network over the real images: they are fetched, where they are not in the cache."""
    data = find_data(None, ROOT / "var" / "data", required=False, download=True, connect_timeout=5, notice=print)
    data = dataclasses.replace(data, validation=some(data.validation, 1000), test=some(data.test, 1000))
    home = tmp_path_factory.mktemp("trained")
    (home / "small_network.py").write_text(SMALL)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two wait for each other all the time, where something else runs too
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(home)
        config = TrainConfig(model="small_network:small", epochs=1, batch_size=64, precision="fp32")
        run = train_with_journal(home, config, data)
    torch.set_num_threads(threads)
    return run


@pytest.fixture(scope="module")
def home(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose registry has two versions; the first is the champion."""
    home = tmp_path_factory.mktemp("registry")
    records = Journal(trained.journal).read()
    for number in (1, 2):
        run = Run(home / "runs" / f"20260101-000000-0000{number}")
        shutil.copytree(trained.folder, run.folder)
        sink = MlflowSink(run.folder, f"sqlite:///{home / 'mlflow.db'}", NAME, NAME, home / "artifacts")
        for record in ({**records[0], "run_id": run.id}, records[1], records[-1]):
            sink.send(record)
    return home


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Service]:
    with Service(home) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Any, service: Service) -> Iterator[Any]:
    with opened(browser, service) as page:
        yield page


def test_trousers_drawn_with_the_mouse_are_trousers(page: Any) -> None:
    draw(page, TROUSERS)
    see(page, "#label", "Trouser")
    see(page, "#bars .top .name", "Trouser")
    pixels = "[...seen.getContext('2d').getImageData(0, 0, 28, 28).data].filter((v, i) => i % 4 == 0 && v)"
    page.wait_for_function(f"{pixels}.length > 100")  # of 784: the whole drawing is answered
    keep(page, "trousers")
    page.keyboard.press("Control+z")
    see(page, "#label", "–")
    expect(page.locator("#hint")).to_be_visible(timeout=PATIENCE)


def test_a_sneaker_is_uploaded(page: Any, trained: Run, tmp_path: Path) -> None:
    few: Dataset = find_local(ROOT / "tests" / "data").read()  # type: ignore[union-attr]
    sneakers = few.test.images[few.test.labels == 7]
    likely = sneakers[Predictor(trained.model).probabilities(sneakers)[:, 7].argmax()]
    Image.fromarray(likely).resize((280, 280)).convert("RGB").save(tmp_path / "shoe.jpg")
    page.locator("#file").set_input_files(tmp_path / "shoe.jpg")
    see(page, "#label", "Sneaker")


def test_a_file_that_is_no_picture_is_told_to_be_none(page: Any) -> None:
    page.locator("#file").set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    see(page, "#complaint", "notes.txt: is no PNG, JPEG")
    draw(page, TROUSERS)
    expect(page.locator("#complaint")).to_be_empty(timeout=PATIENCE)


def test_a_picture_of_a_kind_that_the_service_does_not_read_is_sent_as_one_that_it_does(page: Any) -> None:
    file = io.BytesIO()
    Image.new("L", (40, 90), 30).save(file, "BMP")
    page.locator("#file").set_input_files({"name": "a.bmp", "mimeType": "image/bmp", "buffer": file.getvalue()})
    see(page, "#by", "version")


def test_the_server_is_lost_and_found_again(page: Any, service: Service) -> None:
    draw(page, TROUSERS)
    see(page, "#label", "Trouser")
    service.kill()
    try:
        see(page, "#notices .failure", "The service does not answer")
        keep(page, "lost")
        page.keyboard.press("Escape")
        draw(page, TROUSERS[:5])
    finally:
        service.start()
    see(page, "#notices .news", "The service answers again")
    see(page, "#by", "version")  # what was drawn meanwhile is answered too


@pytest.mark.parametrize("fails", ["lost", "too much to do"])
def test_a_question_that_had_no_answer_is_asked_again(page: Any, fails: str) -> None:
    def fail(route: Any) -> None:
        busy = {"status": 503, "json": {"detail": "384 requests are being answered; try again in a second"}}
        route.abort() if fails == "lost" else route.fulfill(**busy)

    page.wait_for_function("document.documentElement.dataset.version")
    page.route("**/predict?*", fail, times=5 if fails == "lost" else 1)
    page.locator("#samples button").first.click()  # it is asked once; a drawing, with each of its points
    see(page, "#truth", "it is labelled")
    expect(page.locator("#complaint")).to_be_empty(timeout=PATIENCE)
    page.route("**/predict?*", fail)
    page.evaluate("void (setTimeout = ((real) => (work, time) => real(work, time && 100))(setTimeout))")  # in a hurry
    page.locator("#samples button").nth(1).click()
    see(page, "#complaint", "there was no answer to this picture" if fails == "lost" else "try again in a second")


def test_a_new_champion_is_told_of_and_answers(page: Any, service: Service) -> None:
    draw(page, TROUSERS)
    see(page, "#by", "version 1")
    see(page, "#facts", "20260101-000000-00001")
    service.fmnist("promote", "2")
    see(page, "#notices .news", "Version 2 answers now; before, it was version 1.")
    see(page, "#by", "version 2")
    see(page, "#facts", "20260101-000000-00002")
    keep(page, "swapped")
    Registry(f"sqlite:///{service.home / 'mlflow.db'}", NAME).rollback()
    see(page, "#by", "version 1")


def test_the_keyboard_is_enough(page: Any) -> None:
    page.locator("#board").focus()
    for key in ("Space", *["Shift+ArrowDown"] * 3, "Shift+ArrowRight", "Space"):
        page.keyboard.press(key)
    see(page, "#by", "version")
    page.locator("#samples button").first.focus()
    for key in ("ArrowDown", "End", "Enter"):
        page.keyboard.press(key)
    see(page, "#truth", "it is labelled Ankle boot")
    page.locator("#matrix").wait_for()
    page.locator("#matrix").focus()
    page.keyboard.press("ArrowRight")
    see(page, "#cell", "T-shirt/top taken for Trouser: ")
    keep(page, "keyboard")


def test_a_phone_shows_it_whole_and_nothing_moves_under_the_finger(browser: Any, service: Service) -> None:
    shifts = "new PerformanceObserver((list) => (window.shifts = list.getEntries())).observe({type: 'layout-shift'})"
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True}
    with opened(browser, service, **phone) as page:
        page.evaluate(shifts)
        draw(page, TROUSERS)
        see(page, "#label", "Trouser")
        assert page.evaluate("document.scrollingElement.scrollWidth") == 360
        assert page.evaluate("window.shifts ?? []") == []
        keep(page, "phone")


def test_test_images_that_were_not_answered_are_asked_for_again(page: Any, service: Service) -> None:
    page.route("**/samples", lambda route: route.abort("internetdisconnected"), times=5)
    show(page, service.address, "document.documentElement.dataset.service")
    page.locator("#samples button").first.wait_for()


def test_page_and_test_images_weigh_less_than_60_kb_as_they_are_sent(page: Any) -> None:
    page.locator("#samples button").first.wait_for()
    sizes = page.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".filter((entry) => !entry.name.endsWith('/status')).map((entry) => entry.encodedBodySize)"
    )
    assert len(sizes) > 8
    assert sum(sizes) < 60_000


def test_without_a_champion_it_says_what_to_do(browser: Any, tmp_path: Path) -> None:
    with Service(tmp_path / "var") as service, opened(browser, service) as page:
        see(page, "#notices .warning", "fmnist train")
        see(page, "#model", "fmnist train")
        draw(page, TROUSERS)
        keep(page, "no_champion")


def test_a_key_is_asked_for_until_it_is_right(browser: Any, home: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)
    with Service(home, FMNIST_API_KEY_FILE=str(tmp_path / "key")) as service, opened(browser, service) as page:
        for key in (KEY[::-1], KEY):
            page.locator("#key").fill(key)
            page.keyboard.press("Enter")
            see(page, "#lock-why" if key != KEY else "#notices", "This key is wrong" if key != KEY else "answers")
        draw(page, TROUSERS)
        see(page, "#label", "Trouser")


def test_the_page_of_the_api_shows_every_operation(page: Any, service: Service) -> None:
    show(page, f"{service.address}/docs", "document.querySelector('section h3')")
    paths = requests.get(f"{service.address}/openapi.json", timeout=20).json()["paths"]
    expect(page.locator("section h3")).to_have_count(len(paths), timeout=PATIENCE)
    see(page, "#op-predict", f"curl -s {service.address}/predict")
    keep(page, "docs")
