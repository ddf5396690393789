import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fmnist import console as show
from fmnist.predictor import Answer
from fmnist.registry import Version
from fmnist.run import Run


@pytest.fixture
def console() -> Console:
    console = show.make_console()
    console.file = io.StringIO()
    console.width = 100
    return console


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_class_names_what_it_is_most_often_taken_for(console: Console) -> None:
    show.show_classes(console, ["hat", "sock", "glove"], np.array([[8, 2, 0], [1, 5, 4], [0, 0, 9]]))
    rows = {line.split()[0]: line.split() for line in shown(console).splitlines() if line.strip()}
    assert rows["hat"] == ["hat", "0.8889", "0.8000", "0.8421", "10", "sock", "(2)"]
    assert rows["sock"][-2:] == ["glove", "(4)"]
    assert rows["glove"] == ["glove", "0.6923", "1.0000", "0.8182", "9"]


def test_a_result_tells_scores_time_and_what_to_do_next(console: Console, finished: Run) -> None:
    result = finished.result
    assert result is not None
    show.show_result(console, finished, result, {"data": 1.5})
    text = shown(console)
    for part in (
        finished.id,
        f"{result.test.accuracy:.2%}",
        f"{result.val.f1:.4f}",
        "data",
        "total",
        "model.onnx",
    ):
        assert part in text
    assert f"fmnist evaluate {finished.id}" in text


def test_names_are_printed_as_they_are(console: Console) -> None:
    show.show_answers(console, ["[bold]:smile:[/x].png"], [Answer("[red]", 0.9, {"[red]": 0.9, "b": 0.1})])
    assert "[bold]:smile:[/x].png" in shown(console)
    assert "[red]" in shown(console)


@pytest.mark.parametrize(
    ("share", "drawn"), [(0, ""), (1, "█" * 24), (0.5, "█" * 12), (1 / 192, "▏"), (0.51, "█" * 12 + "▎")]
)
def test_bars(share: float, drawn: str) -> None:
    assert show.bar(share).plain == drawn.ljust(24)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_runs_id_is_never_cut(console: Console, finished: Run, width: int) -> None:
    console.width = width
    show.show_runs(console, [finished])
    assert finished.id in shown(console)
    assert width < 80 or all(
        part in shown(console) for part in ("tiny", "fast", f"{finished.result.test.accuracy:.2%}")
    )  # type: ignore[union-attr]


def test_what_is_no_terminal_is_as_wide_as_need_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert show.make_console().width == 200


def test_a_link_is_never_cut_in_two(console: Console, tmp_path: Path) -> None:
    link = f"http://127.0.0.1:8888/lab?token={'x' * 100}"
    show.show_pages(console, {"MLflow": "http://127.0.0.1:5000", "JupyterLab": link}, tmp_path / "logs")
    assert f"  JupyterLab  {link}\n" in shown(console)


def test_of_thousands_the_newest_are_listed_and_what_has_an_alias(console: Console, tmp_path: Path) -> None:
    runs = [Run(tmp_path / f"{number:04}") for number in range(show.NEWEST + 3)]  # damaged, for they hold nothing
    show.show_runs(console, runs)
    assert "0003" in shown(console) and "0002" not in shown(console)
    assert shown(console).endswith("and 3 older; --json lists them all\n")
    about = {"sha256": "", "created": 0.0, "scores": {}, "source": ""}
    versions = [
        Version(number, f"run-{number}", ("champion",) if number == 2 else (), **about)  # type: ignore[arg-type]
        for number in range(1, show.NEWEST + 4)
    ]
    show.show_models(console, versions[2:], [versions[1]])
    assert "run-2 " in shown(console) and "run-3 " not in shown(console) and "run-4 " in shown(console)
    assert shown(console).endswith("and older ones; --json lists them all\n")
