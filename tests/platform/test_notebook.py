"""The notebook in a live kernel, on a few images; and changes to the package without a restart."""

import ast
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import nbformat
import pytest
from nbclient import NotebookClient

import fmnist
from fmnist.recipe import TrainConfig
from fmnist.run import Run
from fmnist.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "fashion_mnist.ipynb"
SMALL_DATA = ROOT / "tests" / "data"
PATIENCE = 3600  # seconds for a cell: a busy machine is no fault

pytestmark = pytest.mark.filterwarnings("ignore")  # Jupyter, MLflow and what they use warn of their own future


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own; and the kernel of this virtual environment, whatever else the user has."""
    for name in list(os.environ):
        if name.startswith(("FMNIST_", "MLFLOW_", "JUPYTER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("FMNIST_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("FMNIST_SYNC_WAIT", "180")  # a busy machine is no fault
    return tmp_path / "var"


def client(notebook: Any, folder: Path) -> NotebookClient:
    return NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=PATIENCE,
        iopub_timeout=PATIENCE,  # nbclient's own is 4 s, after which it drops what a cell shows
        startup_timeout=PATIENCE,
        resources={"metadata": {"path": str(folder)}},
    )


def shown(cell: Any, kind: str) -> list[str]:
    """What the cell shows of this kind, such as image/png."""
    return [output["data"][kind] for output in cell.outputs if kind in output.get("data", {})]


def check_tracked(workspace: Workspace, run: Run) -> None:
    """The run is in MLflow, with its scores, those of every epoch included."""
    uri = workspace.destinations.mlflow_uri
    found: Any = mlflow.MlflowClient(uri, uri)
    experiment = found.get_experiment_by_name(workspace.settings.experiment).experiment_id
    (tracked,) = found.search_runs([experiment], f"tags.`fmnist.run_id` = '{run.id}'")
    assert tracked.info.status == "FINISHED"
    result = run.result
    assert result is not None
    assert tracked.data.metrics["test_accuracy"] == pytest.approx(result.test.accuracy)
    points = found.get_metric_history(tracked.info.run_id, "val_accuracy")
    assert [point.step for point in points] == list(range(1, result.epochs + 1))


def test_the_notebook_runs_from_top_to_bottom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMNIST_DATA", str(SMALL_DATA))  # on the real ones it runs in its container: test_story.py
    workspace = open_workspace()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client(notebook, NOTEBOOK.parent).execute()

    runs = workspace.runs()
    assert [run.config.epochs for run in runs] == [TrainConfig().epochs, 3]
    result = runs[0].result
    assert result is not None
    for run in runs:
        check_tracked(workspace, run)

    cells = {cell.source.splitlines()[-1]: cell for cell in notebook.cells if cell.cell_type == "code"}
    assert len(shown(cells["run"], "image/png")) == 1  # the live plot, drawn anew and not again
    assert "{0}/{0}".format(TrainConfig().epochs) in shown(cells["run"], "text/plain")[1]
    pictures = [name.partition("(")[0] for name, cell in cells.items() if shown(cell, "image/png")]
    expected = ["samples_picture", "run", "confusion_picture", "mistakes_picture", "short", "curves_picture"]
    assert pictures == expected
    (table,) = [text for name, cell in cells.items() if "reindex" in name for text in shown(cell, "text/html")]
    assert all(run.id in table for run in runs)
    complaints = [output.text for cell in cells.values() for output in cell.outputs if output.get("name") == "stderr"]
    assert complaints == []


Cell = Callable[[str], str]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that may be changed; the kernel finds it before the checkout's."""
    copy = tmp_path / "copy" / "fmnist"
    shutil.copytree(Path(fmnist.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(copy.parent))
    monkeypatch.setenv("FMNIST_DATA", str(SMALL_DATA))
    return copy


@pytest.fixture
def cell(package: Path) -> Iterator[Cell]:
    """Runs a cell in a live kernel, in which the notebook's own first cell has run, and gives its last value."""
    notebook = nbformat.v4.new_notebook()
    kernel = client(notebook, package.parent)

    def run(source: str) -> str:
        notebook.cells.append(nbformat.v4.new_code_cell(source))
        done = kernel.execute_cell(notebook.cells[-1], len(notebook.cells) - 1)
        texts = [output.get("text", "") for output in done.outputs]
        assert not any("autoreload" in text for text in texts), texts  # it says where it fails
        return "".join(shown(done, "text/plain")[-1:])

    story = nbformat.read(NOTEBOOK, as_version=4)
    with kernel.setup_kernel():
        run(next(cell.source for cell in story.cells if cell.cell_type == "code"))
        yield run


def change(path: Path, function: str, value: str) -> None:
    """Edit the source: the function returns `value` before it does anything else."""
    lines = path.read_text().splitlines()
    (node,) = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef) and n.name == function]
    lines.insert(node.body[0].lineno - 1, f"    return {value!r}")
    path.write_text("\n".join([*lines, ""]))


@pytest.mark.parametrize(
    ("bound_by", "call", "file", "before"),
    [
        ("from fmnist import load_data", "load_data()", "api.py", "Dataset(custom"),
        ("from fmnist.errors import listing", "listing(['a', 'b'])", "errors.py", "'a"),
        ("import fmnist.errors", "fmnist.errors.listing(['a', 'b'])", "errors.py", "'a"),
    ],
)
def test_a_change_counts_in_a_live_kernel(
    cell: Cell, package: Path, bound_by: str, call: str, file: str, before: str
) -> None:
    kernel = cell("import os, sys\nos.getpid(), sys.executable")
    assert sys.executable in kernel
    cell(bound_by)
    assert str(package) in cell("import fmnist\nfmnist.__file__")
    assert cell(call).startswith(before)
    function = call.partition("(")[0].rpartition(".")[2]
    for value in ("changed", "changed again"):
        change(package / file, function, value)
        assert cell(call) == repr(value)
    assert cell("os.getpid(), sys.executable") == kernel  # no restart
