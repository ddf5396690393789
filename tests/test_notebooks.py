"""What is in git of notebooks/: what was written, nothing that was shown."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from fmnist.settings import checkout_root

FOLDER = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    for cell in code_cells(path):
        assert cell["outputs"] == [], f"clear all outputs of {path} before you commit it"
        assert cell["execution_count"] is None
    notebook = json.loads(path.read_text())
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"  # the kernel that ipykernel brings
    nbformat.validate(nbformat.from_dict(notebook))


def test_the_story_begins_with_changes_that_count_at_once() -> None:
    first = code_cells(FOLDER / "fashion_mnist.ipynb")[0]
    assert "".join(first["source"]).splitlines() == ["%load_ext autoreload", "%autoreload 2"]


def test_a_notebook_uses_the_workspace_of_its_checkout() -> None:
    assert checkout_root(FOLDER) == FOLDER.parent
