"""What doctor says of secrets' modes."""

from pathlib import Path

import pytest

from fmnist.ops.secrecy import known_secrets, secrets


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "service.key"
    path.write_text("k" * 16)
    path.chmod(0o600)
    return path


def open_token(home: Path, mode: int) -> Path:
    path = home / "jupyter" / "token"
    path.parent.mkdir(parents=True)
    path.write_text("token")
    path.chmod(mode)
    return path


def test_without_secrets_there_is_nothing_to_keep(tmp_path: Path) -> None:
    assert secrets(tmp_path, tmp_path, None).state == "off"


def test_what_is_closed_is_well(tmp_path: Path, key: Path) -> None:
    open_token(tmp_path / "var", 0o600)
    (tmp_path / "secrets").mkdir(mode=0o700)
    key.chmod(0o640)  # its group may be the service's
    finding = secrets(tmp_path / "var", tmp_path, key)
    assert finding.state == "ok" and str(key) in finding.found


def test_each_that_is_open_is_told_and_can_be_closed(tmp_path: Path, key: Path) -> None:
    token = open_token(tmp_path / "var", 0o644)
    folder = tmp_path / "secrets"
    folder.mkdir()
    folder.chmod(0o755)
    key.chmod(0o644)
    finding = secrets(tmp_path / "var", tmp_path, key)
    assert finding.state == "bad" and "--fix" in finding.remedy
    assert all(f"{path} (mode " in finding.found for path in (token, folder, key))
    told = [secret.close() for secret in known_secrets(tmp_path / "var", tmp_path, key)]
    assert told == [
        "removed; the next fmnist up makes another",
        "mode 755 is now 700",
        "mode 644 is now 640",
    ]
    assert secrets(tmp_path / "var", tmp_path, key).state == "ok"
    assert not token.exists()  # whoever read it must not get in with it


def test_a_key_that_is_not_there_is_bad(tmp_path: Path) -> None:
    finding = secrets(tmp_path, None, tmp_path / "service.key")
    assert finding.state == "bad" and "FMNIST_API_KEY_FILE" in finding.found and finding.remedy
