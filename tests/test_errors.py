import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from fmnist.errors import Failure, Interrupted, UserError, as_typed, explain, listing, no_room, one_line
from fmnist.recipe import TrainConfig


def test_an_error_is_one_line_whatever_it_holds() -> None:
    assert str(UserError("a\nb", "is\twrong;\n  mend it")) == "a b: is wrong; mend it"
    assert one_line(" x \n y ") == "x y"


def test_errors_are_what_pythons_users_expect() -> None:
    assert issubclass(UserError, ValueError) and UserError.exit_code == 2
    assert issubclass(Failure, RuntimeError) and Failure.exit_code == 1
    assert issubclass(Interrupted, KeyboardInterrupt)


def test_listing() -> None:
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b or c"


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("epochs", -1, "--epochs -1: is too small; give at least 1"),
        ("epochs", "x", "--epochs x: is no whole number; give one"),
        ("learning_rate", float("nan"), "--learning_rate nan: is no finite number; give one"),
        ("learning_rate", 0, "--learning_rate 0: is too small; give more than 0.0"),
        ("dropout", 3, "--dropout 3: is too large; give at most 2.0"),
        ("keep", "x", "--keep x: is not known; give 'last' or 'best'"),
        ("banana", 1, "--banana 1: is not known; leave it out"),
    ],
)
def test_explain_names_value_and_remedy(field: str, value: object, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainConfig(**{field: value})  # type: ignore[arg-type]
    assert str(explain(caught.value, lambda name: f"--{name}")) == told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError("(sqlite3.OperationalError) database or disk is full [SQL: INSERT INTO metrics …]"),
            "the disk of its database is full (database or disk is full)",
        ),
        (
            RuntimeError(
                '500: (psycopg2.errors.DiskFull) could not extend file "base/1": No space left on device\nHINT'
            ),
            'the disk of its database is full (could not extend file "base/1": No space left on device)',
        ),
        (OSError(28, "No space left on device", "/a/b"), "the disk of /a/b is full (No space left on device)"),
        (RuntimeError("500: [Errno 28] No space left on device"), "its disk is full (No space left on device)"),
    ],
)
def test_a_full_disk_is_told_in_a_sentence(error: Exception, told: str) -> None:
    assert no_room(error) == f"{told}; make room there, nothing is lost"
    assert no_room(RuntimeError("database is locked")) is None


def test_an_address_is_told_without_its_password() -> None:
    told = str(UserError("MLflow at http://me:hunter2@host:5000/x", "does not answer postgresql://a:b@c/d"))
    assert told == "MLflow at http://…@host:5000/x: does not answer postgresql://…@c/d"
    assert str(Failure("http://me:p@ss@host/x@y", "is away")) == "http://…@host/x@y: is away"


def test_commands_are_told_as_they_are_to_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = "send the rest with: fmnist sync (fmnist made it); see fmnist runs, .venv/bin/fmnist up"
    assert as_typed(told) == told  # a program of another name
    monkeypatch.setattr(sys, "argv", [".venv/bin/fmnist"])
    monkeypatch.setenv("PATH", str(tmp_path))
    own = ".venv/bin/fmnist"
    assert as_typed(told) == f"send the rest with: {own} sync (fmnist made it); see {own} runs, {own} up"
    (tmp_path / "fmnist").touch(mode=0o755)
    assert as_typed(told) == told
