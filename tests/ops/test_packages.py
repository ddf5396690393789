"""What doctor says of the installed packages."""

from importlib.metadata import version
from pathlib import Path

import pytest

from fmnist.ops import packages as module
from fmnist.ops.packages import packages


def constrain(folder: Path, *lines: str) -> Path:
    (folder / "constraints.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_packages_that_are_as_constrained(tmp_path: Path) -> None:
    checkout = constrain(tmp_path, f"numpy=={version('numpy')}", "# a comment", f"rich=={version('rich')}  # why")
    assert packages(checkout) == ("packages", "ok", "2 installed, all as constraints.txt has them", "")


def test_what_is_not_installed_or_not_for_this_machine_is_not_missed(tmp_path: Path) -> None:
    checkout = constrain(tmp_path, "no-such-package==1.0", "numpy==0.1 ; sys_platform == 'amiga'")
    assert packages(checkout).state == "ok"


def test_other_versions_are_named_a_few_of_them(tmp_path: Path) -> None:
    named = ("numpy", "rich", "typer", "pydantic", "pytest", "ruff")
    finding = packages(constrain(tmp_path, *(f"{name}==0.0.1" for name in named)))
    assert finding.state == "warning" and "setup" in finding.remedy
    assert finding.found.startswith(f"numpy {version('numpy')} (not ==0.0.1), rich ")
    assert finding.found.endswith("and 2 more: not as constraints.txt has them")


def test_a_build_for_another_processor_is_the_same_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "version", lambda name: "2.9.1+cpu")
    assert packages(constrain(tmp_path, "torch==2.9.1")).state == "ok"


@pytest.mark.parametrize("has_checkout", [True, False])
def test_without_constraints_it_is_what_fmnist_itself_requires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_checkout: bool
) -> None:
    checkout = tmp_path if has_checkout else None
    own = [f"mlflow==0.1 ; extra == '{extra}'" for extra in ("track", "dev")]
    assert packages(checkout).state == "ok"
    monkeypatch.setattr(module, "requires", lambda name: ["numpy", *own, "rich<1"])
    finding = packages(checkout)
    assert finding.state == "warning" and finding.found.count("mlflow") == 1 and "rich" in finding.found
    assert "numpy" not in finding.found
