"""What strangers meet on the platform: nothing that is theirs to have."""

import json
import socket
from typing import Any

import psutil
import pytest

SERVICES = ("postgres", "mlflow", "tensorboard", "notebook", "api")


def test_only_its_four_ports_listen_and_only_on_loopback(platform: Any) -> None:
    bindings = {}
    for service in SERVICES:
        ports = platform.inspect(service)["NetworkSettings"]["Ports"]
        bindings[service] = [binding for bound in ports.values() for binding in bound or []]
    assert bindings.pop("postgres") == []
    assert {(binding["HostIp"], int(binding["HostPort"])) for bound in bindings.values() for binding in bound} == {
        ("127.0.0.1", port) for port in platform.ports.values()
    }
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                for port in platform.ports.values():
                    with socket.socket() as probe:
                        probe.settimeout(2)
                        assert probe.connect_ex((address.address, port)) != 0, (address.address, port)


def test_the_database_is_out_of_the_notebooks_reach(platform: Any) -> None:
    knock = "import socket; socket.create_connection(('{}', 5432), 2)"
    address = next(iter(platform.inspect("postgres")["NetworkSettings"]["Networks"].values()))["IPAddress"]
    for place in ("postgres", address):
        assert platform.inside("python", "-c", knock.format(place), check=False).returncode != 0
    assert platform.inside("python", "-c", knock.format("postgres"), service="mlflow").returncode == 0


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_can_do_no_more_than_it_must(platform: Any, service: str) -> None:
    check_confined(platform, service)


def check_confined(platform: Any, service: str) -> None:
    found = platform.inspect(service)
    host = found["HostConfig"]
    assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Privileged"]
    assert host["ReadonlyRootfs"] and "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0 and host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Config"]["max-size"]
    told = platform.inside("sh", "-c", "cat /proc/[0-9]*/status", service=service, check=False).stdout
    values: dict[str, set[str]] = {}
    for line in told.splitlines():
        name, _, value = line.partition(":")
        values.setdefault(name, set()).add(value.strip())
    assert not any(uid.startswith("0\t") for uid in values["Uid"])
    assert values["CapEff"] == values["CapPrm"] == {"0" * 16}
    assert values["NoNewPrivs"] == {"1"}


def test_a_wrong_token_opens_no_notebook(platform: Any) -> None:
    for headers in ({}, {"Authorization": "token wrong"}):
        assert platform.http.get(f"{platform.notebook}/api/contents", headers=headers, timeout=60).status_code == 403
    right = {"Authorization": f"token {platform.token}"}
    assert platform.http.get(f"{platform.notebook}/api/contents", headers=right, timeout=60).status_code == 200


@pytest.mark.parametrize("path", ["{0.notebook}/api", "{0.tensorboard}/data/runs", "{0.mlflow}/", "{0.service}/status"])
def test_a_foreign_name_is_turned_away(platform: Any, path: str) -> None:
    address = path.format(platform)
    for name in ("attacker.example", "attacker.example:5000"):
        assert platform.http.get(address, headers={"Host": name}, timeout=60).status_code == 403
    for name in (None, "192.0.2.7", "box.example.org"):  # the latter two are in ALLOWED_HOSTS
        assert platform.http.get(address, headers={"Host": name}, timeout=60).status_code == 200, name


def test_a_foreign_page_changes_nothing(platform: Any) -> None:
    stranger = {"Origin": "http://attacker.example"}
    create = f"{platform.mlflow}/api/2.0/mlflow/experiments/create"
    assert platform.http.post(create, headers=stranger, json={"name": "theirs"}, timeout=60).status_code == 403
    search = f"{platform.mlflow}/ajax-api/2.0/mlflow/experiments/search"  # as its own page does, under a name of .env's
    own = {"Host": "box.example.org", "Origin": "https://box.example.org"}
    assert platform.http.post(search, headers=own, json={"max_results": 1}, timeout=60).status_code == 200
    assert platform.http.post(search, headers=own | stranger, json={"max_results": 1}, timeout=60).status_code == 403
    assert platform.http.post(f"{platform.service}/predict", headers=stranger, data=bytes(784)).status_code == 403


def test_a_foreign_page_starts_no_kernel_in_a_browser_that_is_logged_in(platform: Any) -> None:
    kernels = f"{platform.notebook}/api/kernels"
    with platform.http as browser:
        assert browser.get(f"{platform.notebook}/lab?token={platform.token}", timeout=60).ok  # the cookies
        own = {"Origin": platform.notebook, "X-XSRFToken": browser.cookies["_xsrf"]}
        before = browser.get(kernels, timeout=60).json()
        for headers in ({"Origin": "http://attacker.example"}, own | {"Origin": "http://attacker.example"}):
            assert browser.post(kernels, headers=headers, json={}, timeout=60).status_code in (403, 404)
        assert browser.get(kernels, timeout=60).json() == before
        made = browser.post(kernels, headers=own, json={}, timeout=60)
        assert made.status_code == 201  # so it was not for something else that it was refused
        browser.delete(f"{kernels}/{made.json()['id']}", headers=own, timeout=60)


def test_no_secret_is_in_an_image_a_description_or_an_environment(platform: Any) -> None:
    check_nothing_told(platform, SERVICES)


def check_nothing_told(platform: Any, services: tuple[str, ...]) -> None:
    folder = platform.folder / "secrets"
    assert folder.stat().st_mode & 0o777 == 0o700
    secrets = [line.rpartition("= ")[2] for file in folder.iterdir() for line in file.read_text().splitlines()]
    secrets = [secret for secret in secrets if secret != "[default]"]
    assert len(secrets) == 6 and min(map(len, secrets)) >= 20
    told = platform.compose("config").stdout
    for service in services:
        image = platform.inspect(service)["Image"]
        told += json.dumps(platform.inspect(service))
        told += platform.run("docker", "history", "--no-trunc", image).stdout
        told += platform.run("docker", "inspect", image).stdout
        seen = platform.inside(
            "sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline", service=service, check=False
        )
        assert "PATH=" in seen.stdout
        told += seen.stdout
    assert [secret for secret in secrets if secret in told] == []
