"""The Open Inference Protocol v2, https://github.com/kserve/open-inference-protocol.

What of it the service speaks: `fmnist/serve/inference.py`.
"""

from urllib.parse import quote

from fmnist.serve.openapi.parts import (
    BINARY,
    BODY,
    BOOLEAN,
    GUARDED,
    HERE,
    INTEGER,
    NUMBER,
    PIXEL,
    STRING,
    Part,
    described,
    get,
    listing,
    parameter,
    ref,
    refused,
    reply,
    shell,
    strict,
)

TAG = "Open Inference Protocol"
_ERROR = "InferenceError"
_DATATYPES = ["UINT8", "UINT16", "UINT32", "UINT64", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"]
_OUTPUTS: Part = {"enum": ["probabilities", "label"]}


def inference_paths(model_name: str) -> Part:
    """`model_name`: as registered."""
    model = parameter("model", "path", {"enum": [model_name]})
    version = parameter("version", "path", STRING, "the one that answers: there is no other")
    served = f"/v2/models/{quote(model_name, safe='')}"
    free, lives, can = "/v2/health", reply("It does.", ref("Live")), reply("It can.", ref("Live"))
    server = reply("And what of the protocol it speaks.", ref("Server"))
    paths = {
        "/v2": get(TAG, "server", "What serves", server, refused(GUARDED, _ERROR), "/v2"),
        f"{free}/live": get(TAG, "live", "Does it live?", lives, refused("403", _ERROR), f"{free}/live"),
        f"{free}/ready": get(TAG, "ready", "Can it answer?", can, refused("403 503", _ERROR), f"{free}/ready"),
    }
    paths |= _model_paths("/v2/models/{model}", served, "", [model])
    paths["/v2/models/{model}/infer"]["post"]["x-codeSamples"].append(_by_tritonclient(model_name))
    newest = "".join(
        [
            f"$(curl -s {HERE}{served} |\n",
            """  python3 -c 'import json, sys; print(json.load(sys.stdin)["versions"][0])')""",
        ]
    )
    return paths | _model_paths(
        "/v2/models/{model}/versions/{version}", f"{served}/versions/{newest}", "Version", [model, version]
    )


def _model_paths(path: str, address: str, suffix: str, parameters: list[Part]) -> Part:
    """Those of a model, or of one version of it."""
    refusals = refused(f"404 {GUARDED}", _ERROR)
    about = reply("-1 stands for any number of images.", ref("Metadata"))
    given, can, more = "What it takes and gives", reply("It can.", ref("ModelReady")), {"parameters": parameters}
    return {
        f"{path}/infer": {"post": _infer(f"infer{suffix}", f"{address}/infer", parameters)},
        path: get(TAG, f"metadata{suffix}", given, about, refusals, address, **more),
        f"{path}/ready": get(TAG, f"modelReady{suffix}", "Can it answer?", can, refusals, f"{address}/ready", **more),
    }


def _infer(name: str, address: str, parameters: list[Part]) -> Part:
    length = parameter(
        "Inference-Header-Content-Length",
        "header",
        {"type": "integer", "minimum": 0},
        "how many bytes of the body are JSON, where tensors follow as bytes",
    )
    answered = reply("Both outputs, or those that were asked for.", ref("Inferred"))
    answered["content"]["application/octet-stream"] = {"schema": BINARY}
    behind = described(BINARY, "JSON, and the tensor as bytes behind it; or the bytes alone.")
    content = {"application/json": {"schema": ref("Infer")}, "application/octet-stream": {"schema": behind}}
    return {
        "tags": [TAG],
        "operationId": name,
        "summary": "Probabilities and labels",
        "description": "One input, `images`, `[N, 28, 28]`. Two outputs: `probabilities`, `FP32 [N, C]`, and `label`, "
        "`BYTES [N]`, the likeliest class.",
        "parameters": [*parameters, length],
        "requestBody": {"required": True, "content": content},
        "responses": {"200": answered} | refused(f"404 {BODY} {GUARDED}", _ERROR),
        "x-codeSamples": [
            shell(
                "An image, as JSON",
                f"curl -s {HERE}/samples | head -c 784 |",
                "  python3 -c 'import json, sys",
                """images = {"name": "images", "datatype": "UINT8", "shape": [1, 28, 28]}""",
                """images["data"] = list(sys.stdin.buffer.read())""",
                """print(json.dumps({"inputs": [images]}))' |""",
                f"  curl -s -d @- {HERE}{address}",
            )
        ],
    }


def _by_tritonclient(model_name: str) -> Part:
    lines = (
        "import numpy as np",
        "from tritonclient.http import InferenceServerClient, InferInput",
        "",
        "images = np.zeros((1, 28, 28), np.uint8)",
        'tensor = InferInput("images", images.shape, "UINT8")',
        "tensor.set_data_from_numpy(images)",
        f'client = InferenceServerClient("{HERE.partition("://")[2]}")',
        f'print(client.infer({model_name!r}, [tensor]).as_numpy("label"))',
    )
    return {"lang": "Python", "label": "As bytes, by tritonclient[http]", "source": "\n".join(lines)}


def _tensor(name: Part, datatype: Part, **optional: Part) -> Part:
    return strict({"name": name, "datatype": datatype, "shape": listing(INTEGER)}, **optional)


_INPUT = _tensor(
    {"const": "images"},
    {"enum": _DATATYPES},
    data=described(listing(PIXEL), "flat, or nested as the shape is; not with binary_data_size"),
    parameters=strict({}, binary_data_size=described(INTEGER, "bytes of it behind the JSON")),
)
_WANTED = strict({"name": _OUTPUTS}, parameters=strict({}, binary_data=BOOLEAN))
_GIVEN = _tensor(
    _OUTPUTS,
    {"enum": ["FP32", "BYTES"]},
    data={"anyOf": [listing(NUMBER), listing(STRING)]},
    parameters=strict({}, binary_data_size=INTEGER),
)
_DESCRIBED = listing(_tensor(STRING, STRING))
SCHEMAS: Part = {
    "Infer": strict(
        {"inputs": listing(_INPUT, 1)},
        id=described(STRING, "which the answer repeats"),
        outputs=described(listing(_WANTED), "all, where none is named"),
        parameters=strict({}, binary_data_output=BOOLEAN),
    ),
    "Inferred": strict({"model_name": STRING, "model_version": STRING, "outputs": listing(_GIVEN)}, id=STRING),
    "Metadata": strict(
        {
            "name": STRING,
            "versions": listing(STRING),
            "platform": STRING,
            "inputs": _DESCRIBED,
            "outputs": _DESCRIBED,
        }
    ),
    "Server": strict({"name": STRING, "version": STRING, "extensions": listing(STRING)}),
    "Live": strict({"live": BOOLEAN}, ready=BOOLEAN),
    "ModelReady": strict({"name": STRING, "ready": BOOLEAN}),
    "InferenceError": strict({"error": STRING}),
}
