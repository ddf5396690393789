"""What a start looks at first: .env, whose platform it is, secrets, where artifacts are. No Docker is asked."""

import os
import subprocess
from importlib import import_module as load
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("no_docker")


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("X_A=two", "X_A", "two"),
        ("  X_A = two  # second", "X_A", "two"),
        ("export X_A='a # b' # c", "X_A", "a # b"),
        ('X_A="a#b"', "X_A", "a#b"),
        ("X_A=a#b", "X_A", "a#b"),
        ("X_A=", "X_A", ""),
        ("X_A= # none", "X_A", ""),
        ("#X_A=two", "X_A", None),
    ],
)
def test_env_is_read_as_compose_reads_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, name: str, value: str | None
) -> None:
    monkeypatch.setattr(load("engine"), "ROOT", tmp_path)
    (tmp_path / ".env").write_text(f"# first\n{line}\n")
    assert load("engine").settings().get(name) == value


def test_another_checkouts_platform_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = load("engine")
    (other := tmp_path / "other").mkdir()
    (own := tmp_path / "own").mkdir()
    (link := tmp_path / "link").symlink_to(own)
    monkeypatch.setattr(engine, "ROOT", own)

    def checks(*folders: Path) -> None:
        told = subprocess.CompletedProcess((), 0, "".join(f"{folder}\n" for folder in folders), "")
        monkeypatch.setattr(engine, "docker", lambda *command, **_: told)
        engine.check_ours()

    checks()
    checks(own, link, tmp_path / "moved away")
    if os.geteuid():
        (closed := tmp_path / "closed" / "fmnist").mkdir(parents=True)
        closed.parent.chmod(0)
        with pytest.raises(engine.Trouble, match=f"is that of {closed}"):
            checks(closed)
        closed.parent.chmod(0o700)
    with pytest.raises(
        engine.Trouble, match=f"is that of {other}; give this checkout PLATFORM_NAME, NOTEBOOK_CONTAINER"
    ):
        checks(own, other)


def test_artifacts_that_would_be_nowhere_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts = load("artifacts")
    given = {
        "ARTIFACTS_DESTINATION": "s3://artifacts",
        "S3_ENDPOINT_URL": "http://s3:9000/",
        "COMPOSE_PROFILES": "cluster",
    }
    monkeypatch.setattr(artifacts, "settings", lambda: given)
    monkeypatch.setattr(load("engine"), "settings", lambda: given)
    monkeypatch.setattr(artifacts, "containers", lambda: [{"ID": "1", "Service": "mlflow"}])
    told = subprocess.CompletedProcess((), 0, '["A=1", "MLFLOW_ARTIFACTS_DESTINATION=/artifacts"]', "")
    monkeypatch.setattr(artifacts, "docker", lambda *command, **_: told)
    assert artifacts.store().service == "s3"
    with pytest.raises(
        artifacts.Trouble, match=r"COMPOSE_PROFILES 'cluster': lacks s3, the server that S3_ENDPOINT_URL"
    ):
        artifacts.check_place()
    given["COMPOSE_PROFILES"] = "cluster, s3"
    artifacts.check_place()
    assert "was /artifacts, is s3://artifacts: until what was kept there is copied" in capsys.readouterr().out
    given.clear()
    artifacts.check_place()
    assert capsys.readouterr().out == ""


def test_secrets_that_a_mask_has_closed_are_readable_in_containers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    starting = load("starting")
    monkeypatch.setattr(starting, "ROOT", tmp_path)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "mlflow_database_password").touch(mode=0o600)
    (own := tmp_path / "credentials").touch(mode=0o600)
    (tmp_path / "secrets" / "s3_credentials").symlink_to(own)
    starting.make_secrets()
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "secrets").iterdir()}
    assert modes.pop("s3_credentials") == 0o600  # a link leads out of the folder that keeps people out
    assert set(modes.values()) == {0o644}
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
