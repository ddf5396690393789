"""docs/your-own.md, and README's lines of Python, do what they say."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fmnist.workspace import open_workspace

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your-own.md").read_text()
MAKE_DATA, NETWORK, PREDICT = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).splitlines()


def test_your_own_data_and_network(
    fmnist: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    exec(MAKE_DATA, {})
    (tmp_path / "tiny.py").write_text(NETWORK)
    assert len(NETWORK.splitlines()) + len(MAKE_DATA.splitlines()) < 30
    shown = ""
    for command in COMMANDS:
        code, out, err = fmnist(*command.split()[1:])
        assert (code, err) == (0, ""), command
        shown += out
    assert all(name in shown for name in ("rows", "columns", "rising", "falling", "tiny:tiny"))
    run = open_workspace().find_run("latest")
    result = run.result
    assert result is not None
    assert result.test.accuracy > 0.9
    names: dict[str, object] = {}
    exec(PREDICT.replace("MODEL", repr(str(run.model))), names)
    answers = names["answers"]
    assert isinstance(answers, list)
    assert len(answers) == 100
    assert set(answers[0].probabilities) == {"rows", "columns", "rising", "falling"}


@pytest.mark.usefixtures("home")
def test_readmes_python(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["run"].result.epochs == 3
    assert str(names["run"].result.test) in capsys.readouterr().out  # the scores that were printed
