from pathlib import Path

import pytest

from fmnist.errors import UserError
from fmnist.settings import Settings, checkout_root
from fmnist.workspace import open_workspace

ROOT = Path(__file__).parents[1]


def test_a_checkout_is_found_from_anywhere_in_it() -> None:
    assert checkout_root(ROOT / "tests" / "data") == ROOT
    assert checkout_root(Path("/")) is None


def test_home_is_the_checkouts_var_or_the_current_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT / "tests")
    assert Settings().home == ROOT / "var"
    monkeypatch.chdir(tmp_path)
    assert Settings().home == tmp_path / "var"
    assert Settings().data == tmp_path / "data"


def test_a_tilde_is_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FMNIST_HOME", "~/place")
    assert Settings().home == tmp_path / "place"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FMNIST_DOWNLOAD", "banana", "FMNIST_DOWNLOAD banana: is neither true nor false; give true, false, yes,"),
        ("FMNIST_CONNECT_TIMEOUT", "banana", "FMNIST_CONNECT_TIMEOUT banana: is no number; give one"),
        ("FMNIST_CONNECT_TIMEOUT", "-1", "FMNIST_CONNECT_TIMEOUT -1: is too small; give more than 0"),
        ("FMNIST_DAT", "x", "FMNIST_DAT: there is no such setting; there are FMNIST_ALLOWED_HOSTS, FMNIST_API"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        open_workspace()
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(("value", "meant"), [("1", True), ("no", False), ("False", False), ("on", True)])
def test_booleans_mean_what_they_say(monkeypatch: pytest.MonkeyPatch, value: str, meant: bool) -> None:
    monkeypatch.setenv("FMNIST_DOWNLOAD", value)
    assert Settings().download is meant


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"`{Settings.variable(name)}`" in page
        assert field.description is not None
        assert field.description in page
