"""What the service gives, beside what people would serve the same model with: in turn, on one machine, asked by wrk.

make bench-serve                    3 x 10 s of each, some 25 minutes, into bench/RESULTS.md
make bench-serve ARGS="--quick"     a second of each, nothing kept
make bench-serve ARGS="--fresh"     forget what an interrupted run had measured

Ours is `fmnist serve` as it is by default, with the workspace's champion; the peers have the same file; wrk shares the
processor with whoever it asks. What is measured is kept at once in var/bench, so that an interrupted run goes on.
"""

import argparse
import io
import json
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from results import Measurements, arithmetic, keep, measurements
from serve_limits import OURS, lone, overload, parts, starts
from serve_report import report
from servers import Question, answers, find_wrk, load, running
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from fmnist import load_data
from fmnist.registry import CHAMPION
from fmnist.settings import Settings
from fmnist.workspace import Workspace

HERE = Path(__file__).parent
ROOT = HERE.parent
PEERS = HERE / "peers"
BIN = PEERS / "serve" / ".venv" / "bin"
UVICORN = [str(BIN / "uvicorn"), "--app-dir", str(PEERS), "--port", "PORT", "--no-access-log", "--log-level", "warning"]
CONNECTIONS, MANY = 16, 256
CROWDS = 256, 1024


class Contender(NamedTuple):
    command: list[str]
    paths: dict[str, str]
    """Which question is asked where."""
    environment: Mapping[str, str] = MappingProxyType({})


def questions() -> dict[str, Question]:
    """The first test image, in every form; 256 of them in the last."""
    images = load_data().test.images[:MANY]
    picture = io.BytesIO()
    Image.fromarray(images[0]).save(picture, "PNG")
    given = InferInput("images", list(images.shape), "UINT8")
    given.set_data_from_numpy(images)
    wanted = InferRequestedOutput("probabilities", binary_data=True)
    tensors, length = InferenceServerClient.generate_request_body([given], outputs=[wanted])
    json_, raw = {"Content-Type": "application/json"}, {"Content-Type": "application/octet-stream"}
    return {
        "JSON": Question(_json(images[0].ravel()), json_),
        "raw": Question(images[0].tobytes(), raw),
        "PNG": Question(picture.getvalue(), {"Content-Type": "image/png"}),
        "/invocations": Question(_json(images[:1]), json_),
        "v2": Question(tensors, raw | {"Inference-Header-Content-Length": str(length)}, MANY),
    }


def _json(images: np.ndarray) -> bytes:
    return json.dumps({"inputs": images.tolist()}, separators=(",", ":")).encode()


def contenders(model: Path, model_name: str) -> dict[str, Contender]:
    """`model`: the champion as MLflow keeps it, a folder."""
    file = {"MODEL": str(model / "model.onnx")}
    mlflow = [
        "models",
        "serve",
        "--model-uri",
        str(model),
        "--env-manager",
        "local",
        "--port",
        "PORT",
        "--workers",
        "1",
    ]
    bare = dict.fromkeys(("JSON", "raw", "PNG"), "/")
    own = dict.fromkeys(bare, "/predict") | {"/invocations": "/invocations", "v2": f"/v2/models/{model_name}/infer"}
    fastapi = {kind: f"/predict/{kind.lower()}" for kind in bare}
    path = {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}  # it starts uvicorn by name
    return {
        "fmnist serve": Contender(OURS, own),
        "FastAPI + ONNX Runtime": Contender([*UVICORN, "serve_fastapi:app"], fastapi, file),
        "bare ASGI + ONNX Runtime": Contender([*UVICORN, "serve_asgi:app"], bare, file),
        "LitServe": Contender(
            [str(BIN / "python"), str(PEERS / "serve_litserve.py"), "PORT"], {"JSON": "/predict"}, file
        ),
        "mlflow models serve": Contender(
            [str(BIN / "python"), "-m", "mlflow", *mlflow], {"/invocations": "/invocations"}, path
        ),
        "bare ASGI, a constant": Contender([*UVICORN, "serve_echo:app"], {"JSON": "/"}),
    }


def sources() -> list[Path]:
    """What the measurements depend on."""
    found = [*(ROOT / "fmnist" / "serve").glob("*.py"), *HERE.glob("serv*.py"), *PEERS.glob("serve_*.py")]
    return [*found, ROOT / "fmnist" / "predictor.py", ROOT / "constraints.txt", PEERS / "requirements-serve.txt"]


def measure(contender: Contender, asked: dict[str, Question], seconds: float) -> dict[str, Any]:
    """Start it, ask all that it understands, weigh it."""
    kind, path = next(iter(contender.paths.items()))
    found: dict[str, Any] = {}
    with running(contender.command, path, asked[kind], contender.environment) as server:
        for kind, path in contender.paths.items():
            if not answers(server.port, path, asked[kind]):
                raise SystemExit(f"{contender.command[-1]}: does not answer {kind} at {path}")
            load(server.port, path, asked[kind], connections=CONNECTIONS, seconds=min(seconds, 1))  # to warm up
            got = load(server.port, path, asked[kind], connections=CONNECTIONS, seconds=seconds)
            if got.statuses:
                raise SystemExit(f"{contender.command[-1]}: {kind} is not always answered: {got.statuses}")
            found[kind] = {"rate": got.rate * asked[kind].images, "p50": got.p50, "p99": got.p99}
        return {"started": server.started, "memory": server.memory(), "asked": found}


def find_model(workspace: Workspace, folder: str) -> Path:
    """The champion's folder, copied out of MLflow. Ends the benchmark where there is none."""
    import mlflow

    mlflow.set_tracking_uri(workspace.destinations.mlflow_uri)
    uri = f"models:/{workspace.settings.model_name}@{CHAMPION}"
    try:
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
    except mlflow.MlflowException as error:
        raise SystemExit(f"{uri}: is not there ({error.message[:80]}); train one: fmnist train") from error


class Effort(NamedTuple):
    """How often, and for how many seconds, something is asked."""

    rounds: int = 3
    seconds: float = 10
    lone_rounds: int = 5
    lone_seconds: float = 5
    crowd_seconds: float = 60
    starts: int = 5


def compare(measured: Measurements, workspace: Workspace, effort: Effort) -> str:
    """Everything, as RESULTS.md is to have it."""
    asked = questions()
    with tempfile.TemporaryDirectory() as scratch:
        model = find_model(workspace, scratch)
        several = contenders(model, workspace.settings.model_name)
        found: dict[str, list[Any]] = {label: [] for label in several}
        for number in range(effort.rounds):
            for label, one in several.items():
                name = f"{label}, round {number + 1}"
                found[label].append(measured.get(name, partial(measure, one, asked, effort.seconds)))
        first = measured.get("starts", partial(starts, workspace, model / "model.onnx", asked["raw"], effort.starts))
    each = measured.get("parts", partial(parts, asked["raw"], effort.rounds, effort.lone_seconds))
    alone = measured.get("lone", partial(lone, asked["raw"], effort.lone_rounds, effort.lone_seconds))
    crowds = {}
    for count in CROWDS:
        ask = partial(overload, asked["JSON"], count, effort.crowd_seconds)
        crowds[count] = measured.get(f"{count} connections", ask)
    return report(found, first, alone, crowds, each, effort.seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a second of each, nothing kept")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    arguments = parser.parse_args()
    find_wrk()
    workspace = Workspace(Settings())
    if arguments.quick:
        print(compare(Measurements(None), workspace, Effort(1, 1, 1, 1, 3, 1)))
        return
    text = compare(measurements("serve", sources(), arguments.fresh), workspace, Effort())
    print(text)
    keep(f"<!-- serving, {arithmetic()} -->", text)


if __name__ == "__main__":
    main()
