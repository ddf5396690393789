"""What doctor says of MLflow's database and registry: of those that MLflow itself made."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlparse

import pytest

from fmnist.ops.stores import database, registry
from fmnist.registry import Registry

from ..helpers import Quiet, free_port, web_server

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future
NAME = "fashion-mnist"


@pytest.fixture
def file(three_versions: Path, tmp_path: Path) -> Path:
    """A copy that may be changed; the files that it names are shared."""
    return Path(shutil.copy(three_versions / "mlflow.db", tmp_path / "mlflow.db"))


def change(file: Path, command: str, *values: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(command, values)


def test_a_schema_that_is_current(file: Path) -> None:
    before = file.read_bytes()
    uri = f"sqlite:///{file}"
    assert database(uri, NAME) == ("database", "ok", f"{uri}, its schema is current", "")
    assert file.read_bytes() == before


def test_an_older_schema_is_told_and_left_as_it_is(file: Path) -> None:
    change(file, "UPDATE alembic_version SET version_num = ?", "451aebb31d03")  # MLflow's first step
    before = file.read_bytes()
    finding = database(f"sqlite:///{file}", NAME)
    assert finding.state == "bad" and "451aebb31d03, this MLflow's is" in finding.found
    assert finding.remedy == "fmnist upgrade; it keeps a backup first"
    assert file.read_bytes() == before


@pytest.mark.parametrize("revision", ["fffffffffffe", None])
def test_a_schema_that_is_not_known(file: Path, revision: str | None) -> None:
    if revision:
        change(file, "UPDATE alembic_version SET version_num = ?", revision)
    else:
        file.write_bytes(b"")
    finding = database(f"sqlite:///{file}", NAME)
    assert finding.state == "bad" and finding.found.endswith("which this MLflow does not know")


def test_a_registry_that_is_consistent(file: Path) -> None:
    uri = f"sqlite:///{file}"
    known = "there, with the hash that was registered"
    assert registry(uri, NAME) == ("registry", "ok", f"champion is version 1: {known}", "")
    Registry(uri, NAME).promote("2")
    assert registry(uri, NAME).found == f"champion is version 2, previous is version 1: {known}"


@pytest.mark.parametrize(("alias", "state"), [("champion", "bad"), ("previous", "warning")])
@pytest.mark.parametrize(
    ("change_made", "told"),
    [
        ("UPDATE model_version_tags SET value = 'abc' WHERE key = 'sha256' AND version = ?", "on record is abc"),
        ("UPDATE model_versions SET storage_location = '/nowhere' WHERE version = ?", "its file is gone"),
    ],
)
def test_a_model_that_is_gone_or_another(file: Path, alias: str, state: str, change_made: str, told: str) -> None:
    uri = f"sqlite:///{file}"
    Registry(uri, NAME).promote("2")
    change(file, change_made, "2" if alias == "champion" else "1")
    finding = registry(uri, NAME)
    assert finding.state == state and told in finding.found and "promote another" in finding.remedy


def test_a_registry_without_a_champion_is_off(file: Path, tmp_path: Path) -> None:
    assert registry(f"sqlite:///{file}", "another").state == "off"
    assert registry(f"sqlite:///{tmp_path / 'none.db'}", NAME).state == "off"
    assert registry("postgresql://u:secret@h/d", NAME) == (
        *("registry", "off", "postgresql://…@h/d: only MLflow's own programs read it", ""),
    )


@pytest.fixture
def server(file: Path) -> Iterator[str]:
    """As much of MLflow's server as is asked for a champion, from the database."""
    place = Registry(f"sqlite:///{file}", NAME)

    class Answer(Quiet):
        def do_GET(self) -> None:
            champion = place.find("champion")
            path = urlparse(self.path)
            if path.path.endswith("get-download-uri"):
                return self.reply(200, {"artifact_uri": self.location()})
            if "alias=previous" in path.query:
                return self.reply(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})
            tags = [{"key": "sha256", "value": champion.sha256}]
            version = {"version": champion.number, "creation_timestamp": 0, "tags": tags}
            return self.reply(200, {"model_version": version})

        def location(self) -> str:
            with closing(sqlite3.connect(file)) as connection:
                ((found,),) = connection.execute("SELECT storage_location FROM model_versions WHERE version = 1")
            return str(found)

    with web_server(Answer) as address:
        yield address


def test_a_servers_registry_is_asked_too(file: Path, server: str) -> None:
    assert registry(server, NAME).found.startswith("champion is version 1: there")
    change(file, "UPDATE model_version_tags SET value = 'abc' WHERE key = 'sha256'")
    assert registry(server, NAME).state == "bad"


def test_a_server_that_is_away_is_no_more_than_a_warning() -> None:
    finding = registry(f"http://127.0.0.1:{free_port()}", NAME)
    assert finding.state == "warning" and "does not answer" in finding.found
