"""The service in its container: without a champion, with the first one, without MLflow, and what is in its image."""

import json
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

BASE = "python:3.11-slim-bookworm"
LARGEST = 300 * 10**6  # bytes above the base
STRANGERS = ("torch", "mlflow", "pandas", "matplotlib", "sklearn", "pip")
ASK = """
import http.client, sys
method, path, *key = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", 8000)
connection.request(method, path, bytes(784), {"X-API-Key": key[0]} if key else {})
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""

pytestmark = pytest.mark.filterwarnings("ignore")


class Another:
    """A second container of the service, for a model that nobody registered, which asks for a key."""

    def __init__(self, platform: Any) -> None:
        self.platform, self.name, self.key = platform, f"{platform.name}-another", secrets.token_urlsafe(24)
        file = platform.folder / "secrets" / "api_key"
        file.write_text(self.key)  # the first container has read it, and does not look again
        options = ["--detach", "--no-deps", "--env", "FMNIST_MODEL_NAME=nobodys", "--name", self.name]
        try:
            platform.compose("run", *options, "api")
            platform.wait(lambda: self.inspect()["State"]["Health"]["Status"] == "healthy", "it to be healthy")
        finally:
            file.write_text("")  # or the first one asks for it when it starts again

    def inspect(self) -> dict[str, Any]:
        return dict(json.loads(self.platform.run("docker", "inspect", self.name).stdout)[0])

    def inside(self, *command: str) -> str:
        return str(self.platform.run("docker", "exec", self.name, *command).stdout)

    def ask(self, *arguments: str) -> tuple[str, str]:
        """(status, body)."""
        code, _, body = self.inside("python", "-c", ASK, *arguments).partition(" ")
        return code, body

    def remove(self) -> None:  # or compose counts it among the platform's
        self.platform.run("docker", "rm", "--force", self.name)


def test_without_a_champion_it_is_healthy_and_says_what_to_do_to_those_with_the_key(platform: Any) -> None:
    another = Another(platform)
    try:
        asked = partial(another.ask, "POST", "/predict", another.key)
        platform.wait(lambda: "nobodys has no champion yet" in asked()[1], "its first look")
        code, body = asked()
        assert code == "503"
        assert json.loads(body)["detail"] == "nobodys has no champion yet; train one: fmnist train"
        assert json.loads(another.ask("GET", "/status", another.key)[1])["model"] is None
        assert another.ask("POST", "/predict")[0] == another.ask("POST", "/predict", "k" * 16)[0] == "401"
        seen = another.inside("sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; ls -l /run/fmnist")
        assert "-rw------- 1 service service" in seen
        assert another.key not in seen + json.dumps(another.inspect())
    finally:
        another.remove()


def status(platform: Any) -> dict[str, Any]:
    """What it says of itself, nothing while it is started again."""
    try:
        return dict(platform.http.get(f"{platform.service}/status", timeout=60).json())
    except OSError:
        return {}


def until(platform: Any, holds: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
    return dict(platform.wait(lambda: (about := status(platform)) and holds(about) and about, what))


def answering_version(platform: Any) -> str:
    answer = platform.http.post(f"{platform.service}/predict", data=bytes(784), timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"]["version"])


@pytest.fixture(scope="module")
def champion(platform: Any) -> str:
    """Its version: the first training's, where no test has trained before."""
    platform.inside(*platform.train_few(1))
    found = platform.mlflow_get("registered-models/alias", name="fashion-mnist", alias="champion")
    return str(found["model_version"]["version"])


def test_the_champion_answers_and_its_page_links_to_the_others(platform: Any, champion: str) -> None:
    about = until(platform, lambda about: about["model"], "the champion to answer")
    assert about["model"]["version"] == answering_version(platform) == champion
    assert about["links"] == {"MLflow": platform.mlflow, "TensorBoard": platform.tensorboard}


def test_without_mlflow_it_goes_on_also_after_it_was_killed(platform: Any, champion: str) -> None:
    until(platform, lambda about: about["model"], "the champion to answer")
    platform.compose("kill", "mlflow")
    try:
        about = until(platform, lambda about: about["registry_trouble"], "it to notice")
        assert about["ready"] and answering_version(platform) == champion
        victim = platform.kill("api")
        platform.wait(lambda: platform.inspect("api")["RestartCount"] > victim["RestartCount"], "a restart")
        about = until(platform, lambda about: about["model"], "the model that was kept")
        assert about["model"]["from_cache"] and "http://mlflow:5000" in about["registry_trouble"]
        assert answering_version(platform) == champion
        platform.wait_until_healthy("api")
    finally:
        platform.compose("start", "mlflow")
        platform.wait_until_healthy("mlflow")
    until(platform, lambda about: about["registry_trouble"] is None, "it to have MLflow back")


def test_its_image_is_small_and_has_nothing_that_it_does_not_need(platform: Any) -> None:
    command = ["docker", "image", "inspect", "--format", "{{.Size}}", platform.inspect("api")["Image"], BASE]
    whole, base = map(int, platform.run(*command).stdout.split())
    assert whole - base < LARGEST
    script = f"from importlib.util import find_spec as find; print([name for name in {STRANGERS} if find(name)])"
    assert platform.inside("python", "-c", script, service="api").stdout == "[]\n"
