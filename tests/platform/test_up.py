"""`fmnist up` for real: four servers, a training meanwhile, what a browser gets, and nothing left at the end."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from ..helpers import environment_of, until

WAIT = 180  # seconds; a busy machine is no fault

pytestmark = pytest.mark.filterwarnings("ignore")


class Up:
    """A running `fmnist up` on ports of its own."""

    def __init__(self, home: Path) -> None:
        with ExitStack() as held:
            sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
            self.ports = [taken.getsockname()[1] for taken in sockets]
        names = (f"FMNIST_{name}_PORT" for name in ("MLFLOW", "TENSORBOARD", "NOTEBOOK", "SERVICE"))
        self.environment = environment_of(home) | dict(zip(names, map(str, self.ports), strict=True))
        self.environment["FMNIST_SYNC_WAIT"] = str(WAIT)
        command = [sys.executable, "-m", "fmnist", "up"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=self.environment, cwd=home.parent, **pipes)
        assert self.process.stdout is not None
        shown = ""
        for line in self.process.stdout:
            shown += line
            if "Ctrl-C" in line:
                break
        self.pages = dict(re.findall(r"^  (\w+) +(http\S+)$", shown, re.MULTILINE))
        assert list(self.pages) == ["MLflow", "TensorBoard", "JupyterLab", "Service"], (
            shown + self.process.communicate()[1]
        )
        self.session = requests.Session()
        self.session.trust_env = False

    def get(self, name: str, path: str, **options: Any) -> requests.Response:
        root = self.pages[name].partition("/lab")[0]
        return self.session.get(f"{root}/{path}", timeout=60, **options)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals) -> tuple[int, str, str]:
        """(exit code, stdout, stderr), once nothing is left of it."""
        family = self.family()
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=WAIT)
        self.check_nothing_left(family)
        return self.process.returncode, out, err

    def check_nothing_left(self, family: list[psutil.Process]) -> None:
        assert psutil.wait_procs(family, timeout=30)[1] == []
        for port in self.ports:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path / "var")
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        running.process.communicate(timeout=WAIT)


def test_a_training_shows_in_all_and_ctrl_c_ends_them(up: Up, tmp_path: Path) -> None:
    train = [sys.executable, "-m", "fmnist", "train", "--epochs", "2", "--batch-size", "64"]
    done = subprocess.run(train, env=up.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run_id,) = (folder.name for folder in (tmp_path / "var" / "runs").iterdir())
    check_mlflow(up, run_id)
    tags = until(lambda: up.get("TensorBoard", "data/plugin/scalars/tags").json().get(run_id))
    assert "val_accuracy" in tags
    points = up.get("TensorBoard", "data/plugin/scalars/scalars", params={"run": run_id, "tag": "val_accuracy"}).json()
    assert [step for _, step, _ in points] == [1, 2]
    check_service(up, run_id)
    check_notebook(up, tmp_path)
    code, out, err = up.end(signal.SIGINT)
    assert (code, out.strip()) == (0, "all is stopped")
    assert "ERROR" not in err


def check_mlflow(up: Up, run_id: str) -> None:
    api = f"{up.pages['MLflow']}/api/2.0/mlflow"
    experiment = up.get("MLflow", "api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": "fashion-mnist"})
    place = experiment.json()["experiment"]["experiment_id"]
    (run,) = up.session.post(f"{api}/runs/search", json={"experiment_ids": [place]}, timeout=60).json()["runs"]
    assert run["info"]["run_name"] == run_id
    picture = {"path": "confusion_matrix/test.png", "run_uuid": run["info"]["run_id"]}
    assert up.get("MLflow", "get-artifact", params=picture).content.startswith(b"\x89PNG")
    model = up.get("MLflow", "api/2.0/mlflow/registered-models/get", params={"name": "fashion-mnist"}).json()
    assert model["registered_model"]["aliases"] == [{"alias": "champion", "version": "1"}]
    foreign = {"Origin": "http://elsewhere.example"}
    refused = up.session.post(f"{api}/experiments/create", json={"name": "x"}, headers=foreign, timeout=60)
    assert refused.status_code == 403
    for name in ("MLflow", "TensorBoard", "Service"):
        assert up.get(name, "", headers={"Host": "elsewhere.example"}).status_code == 403


def check_service(up: Up, run_id: str) -> None:
    """The champion answers; its page links to the other two."""
    about = until(lambda: (told := up.get("Service", "status").json())["model"] and told)
    assert (about["model"]["version"], about["model"]["run_id"]) == ("1", run_id)
    links = {name: up.pages[name].replace("127.0.0.1", "localhost") for name in ("MLflow", "TensorBoard")}
    assert about["links"] == links
    reply = up.session.post(f"{up.pages['Service']}/predict", data=bytes(784), timeout=60).json()
    assert reply["model"] == {"name": "fashion-mnist", "version": "1"}


def check_notebook(up: Up, folder: Path) -> None:
    """It asks for the token, and its kernel (still running when all is stopped) is this Python."""
    link, token = up.pages["JupyterLab"].split("?token=")
    assert up.get("JupyterLab", "api/contents").status_code == 403
    assert up.session.get(f"{link}?token={token}", timeout=60).status_code == 200
    given = {"Authorization": f"token {token}"}
    files = up.get("JupyterLab", "api/contents", headers=given)
    assert files.status_code == 200
    before = {process.pid for process in up.family()}
    root = link.partition("/lab")[0]
    assert up.session.post(f"{root}/api/kernels", headers=given, json={}, timeout=60).status_code == 201
    (kernel,) = until(lambda: [process for process in up.family() if process.pid not in before])
    assert kernel.cmdline()[0] == sys.executable
    assert kernel.environ()["FMNIST_HOME"] == str(folder / "var")
    assert all(token not in " ".join(process.cmdline()) for process in up.family())


@pytest.mark.parametrize("name", ["mlflow", "fmnist.tensorboard_server", "jupyterlab"])
def test_one_that_is_killed_ends_the_others_and_is_named(up: Up, name: str) -> None:
    family = up.family()
    (server,) = (process for process in family if process.cmdline()[1:4] == ["-P", "-m", name])
    server.kill()
    _, err = up.process.communicate(timeout=WAIT)
    up.check_nothing_left(family)
    shown = {"mlflow": "MLflow", "fmnist.tensorboard_server": "TensorBoard", "jupyterlab": "JupyterLab"}[name]
    assert up.process.returncode == 1
    assert err.splitlines()[-1].startswith(f"fmnist: {shown}: was killed by SIGKILL; it last said: ")


def test_sigterm_ends_all_and_a_second_one_meanwhile_is_told_who_has_the_port(up: Up) -> None:
    second = [sys.executable, "-m", "fmnist", "up"]
    done = subprocess.run(second, env=up.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"fmnist: port \d+ for MLflow: is taken by .* \(pid \d+, user .*\n", done.stderr)
    assert up.end(signal.SIGTERM)[0] == 0


def test_nothing_outlives_one_that_was_killed(up: Up) -> None:
    family = up.family()
    up.process.kill()
    up.process.communicate(timeout=WAIT)
    up.check_nothing_left(family)
