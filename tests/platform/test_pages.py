"""The pages as a browser shows them. What it saw is kept in `var/screenshots` of the checkout, to be looked at."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from .browsing import PICTURES, chromium

PATIENCE = 120_000  # milliseconds; a busy machine is no fault
TRAINING = "workflowType=machine_learning"  # MLflow's pages for trained models, not those for language models

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def runs(platform: Any, story: str) -> dict[str, str]:
    """The notebook's runs: their ids -> those in MLflow."""
    found = platform.mlflow_post("runs/search", experiment_ids=["1"])["runs"]
    return {run["info"]["run_name"]: run["info"]["run_id"] for run in found}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    PICTURES.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(viewport={"width": 1400, "height": 860})
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def keep(page: Any, name: str) -> None:
    page.wait_for_timeout(1500)  # what fades in has done so
    page.screenshot(path=PICTURES / f"{name}.png")


def see(page: Any, *texts: str) -> None:
    """Wait until the page shows each."""
    for text in texts:
        page.get_by_text(text).filter(visible=True).first.wait_for()


def open_mlflow(page: Any, address: str) -> None:
    page.goto(f"{address}{'&' if '?' in address else '?'}{TRAINING}")
    closer = page.get_by_role("button", name=re.compile("close", re.IGNORECASE))
    page.wait_for_timeout(4000)
    for button in closer.filter(visible=True).all():  # the offer of an assistant
        button.click()


def test_jupyterlab_shows_the_story(platform: Any, page: Any, story: str) -> None:
    page.goto(f"{platform.notebook}/lab/tree/fashion_mnist.ipynb?token={platform.token}")
    see(page, "fashion_mnist.ipynb", "Fashion-MNIST")
    assert "token" not in page.url
    keep(page, "platform_notebook")


def test_jupyterlab_without_its_token_asks_for_it(platform: Any, page: Any) -> None:
    page.goto(f"{platform.notebook}/lab")
    see(page, "Token authentication is enabled")


@pytest.mark.parametrize(
    ("view", "texts"),
    [
        ("scalars&tagFilter=val_(accuracy%7Closs)&_smoothingWeight=0", ["val_accuracy", "val_loss"]),
        ("images", ["confusion_matrix/validation", "confusion_matrix/test", "mistakes"]),
        ("graphs", ["Main Graph"]),
        ("hparams", ["batch_size"]),
    ],
)
def test_tensorboard_shows(platform: Any, page: Any, story: str, view: str, texts: list[str]) -> None:
    page.goto(f"{platform.tensorboard}/?darkMode=false#{view}")
    if view not in ("graphs", "hparams"):
        see(page, story)
    see(page, *texts) if view != "graphs" else page.locator("tf-graph-scene").wait_for()
    page.wait_for_timeout(4000)
    keep(page, f"platform_tensorboard_{view.partition('&')[0]}")


def test_mlflow_lists_the_runs(platform: Any, page: Any, runs: dict[str, str]) -> None:
    open_mlflow(page, f"{platform.mlflow}/#/experiments/1/runs")
    see(page, *runs)
    keep(page, "platform_mlflow_runs")


def test_mlflow_shows_a_run(platform: Any, page: Any, story: str, runs: dict[str, str]) -> None:
    open_mlflow(page, f"{platform.mlflow}/#/experiments/1/runs/{runs[story]}")
    see(page, story, "val_accuracy", "learning_rate")
    keep(page, "platform_mlflow_run")


def test_mlflow_draws_its_metrics(platform: Any, page: Any, story: str, runs: dict[str, str]) -> None:
    open_mlflow(page, f"{platform.mlflow}/#/experiments/1/runs/{runs[story]}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill("val_|train_")
    see(page, "val_accuracy", "train_loss")
    keep(page, "platform_mlflow_metrics")


def test_mlflow_shows_an_artifact(platform: Any, page: Any, story: str, runs: dict[str, str]) -> None:
    open_mlflow(page, f"{platform.mlflow}/#/experiments/1/runs/{runs[story]}/artifacts")
    page.get_by_text("confusion_matrix").first.click()
    page.get_by_text("test.png").first.click()
    page.locator("img[src^='blob:'], img[src*='test.png'], .image-container img").first.wait_for()
    keep(page, "platform_mlflow_artifact")


def test_mlflow_compares_two_runs(platform: Any, page: Any, runs: dict[str, str]) -> None:
    two = list(runs.values())[:2]
    chosen = "%5B%22" + "%22%2C%22".join(two) + "%22%5D"
    open_mlflow(page, f"{platform.mlflow}/#/compare-runs?runs={chosen}&experiments=%5B%221%22%5D")
    see(page, "Comparing 2 Runs", *list(runs)[:2])
    keep(page, "platform_mlflow_compare")
