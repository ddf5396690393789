from collections.abc import Callable, Iterable
from typing import Any

import pytest

from fmnist.tensorboard_server import allowed_hosts, guarded


def tensorboard(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"all runs"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:6007", "200 OK"),
        ("127.0.0.1:6007", "200 OK"),
        ("[::1]:6007", "200 OK"),
        ("Box.example.org:6007", "200 OK"),
        ("box.example.org", "200 OK"),  # behind a proxy on the usual port
        ("localhost", "200 OK"),
        ("localhost:6006", "403 Forbidden"),
        ("attacker.example:6007", "403 Forbidden"),
        ("localhost.attacker.example:6007", "403 Forbidden"),
        ("", "403 Forbidden"),
    ],
)
def test_only_known_names_are_answered(host: str, status: str) -> None:
    told: list[str] = []
    answer = guarded(tensorboard, allowed_hosts(" box.example.org,", "6007"))
    body = b"".join(answer({"HTTP_HOST": host} if host else {}, lambda status, headers: told.append(status)))
    assert told == [status]
    assert (body == b"all runs") is (status == "200 OK")


def test_a_star_is_any_name() -> None:
    told: list[str] = []
    answer = guarded(tensorboard, allowed_hosts("*", "6007"))
    assert b"".join(answer({"HTTP_HOST": "box"}, lambda status, headers: told.append(status))) == b"all runs"
