import errno
import os
import socket
from collections.abc import Iterator

import psutil
import pytest

from fmnist.errors import Failure, UserError
from fmnist.ports import Port, _explained, check_ports, known_names, netloc, port_holder, with_port

HOST = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_named_with_its_holder(taken: int) -> None:
    with pytest.raises(Failure) as caught:
        check_ports(HOST, [Port("MLflow", taken, "FMNIST_MLFLOW_PORT")])
    me = psutil.Process()
    assert str(caught.value) == (
        f"port {taken} for MLflow: is taken by {me.name()} (pid {os.getpid()}, user {me.username()}); "
        "stop that, or set FMNIST_MLFLOW_PORT to another port"
    )


def test_a_holder_that_cannot_be_seen_is_no_error() -> None:
    with socket.socket() as bound:  # taken, but nobody listens
        bound.bind((HOST, 0))
        port = bound.getsockname()[1]
        assert port_holder(port) == "a process that you may not see"


def test_a_free_port_is_free_again_after_a_connection(taken: int) -> None:
    with socket.create_server((HOST, 0)) as server, socket.create_connection(server.getsockname()):
        port = server.getsockname()[1]
        server.accept()[0].close()
    check_ports(HOST, [Port("MLflow", port, "FMNIST_MLFLOW_PORT")])


def test_equal_ports_name_both() -> None:
    ports = [Port("MLflow", 5000, "FMNIST_MLFLOW_PORT"), Port("TensorBoard", 5000, "FMNIST_TENSORBOARD_PORT")]
    with pytest.raises(UserError, match="FMNIST_MLFLOW_PORT and FMNIST_TENSORBOARD_PORT: are both 5000; give each"):
        check_ports(HOST, ports)


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere"])
def test_an_address_of_another_machine_is_told(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    if host == "nowhere":  # asks no network
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UserError, match=f"FMNIST_HOST {host}: is no address of this machine"):
        check_ports(host, [Port("MLflow", 0, "FMNIST_MLFLOW_PORT")])


def test_a_port_for_root_is_told() -> None:
    error = _explained(
        PermissionError(errno.EACCES, "Permission denied"), HOST, Port("MLflow", 80, "FMNIST_MLFLOW_PORT")
    )
    assert isinstance(error, UserError)
    assert str(error) == "FMNIST_MLFLOW_PORT 80: is for root only; give one from 1024 on"


@pytest.mark.parametrize(
    ("host", "written"), [("0.0.0.0", "127.0.0.1:1"), ("::", "[::1]:1"), ("10.0.0.1", "10.0.0.1:1")]
)
def test_an_address_that_a_browser_reaches(host: str, written: str) -> None:
    assert netloc(host, 1) == written


@pytest.mark.parametrize(
    ("host", "further", "known"),
    [
        ("127.0.0.1", "", ["127.0.0.1", "[::1]", "localhost"]),
        ("127.0.0.2", " box ,", ["127.0.0.1", "127.0.0.2", "[::1]", "box", "localhost"]),
        ("0.0.0.0", "box", ["127.0.0.1", "[::1]", "box", "localhost"]),
        ("0.0.0.0", "", None),  # under which names a network knows it, nobody has said
        ("127.0.0.1", "box, *", None),
    ],
)
def test_names_that_a_server_is_asked_by(host: str, further: str, known: list[str] | None) -> None:
    assert known_names(host, further) == known
    assert known is None or with_port(known[:1], 80) == ["127.0.0.1", "127.0.0.1:80"]
