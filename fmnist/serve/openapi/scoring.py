"""MLflow's scoring protocol. Where the service differs from the real server: `fmnist/serve/scoring.py`."""

from fmnist.serve.openapi.parts import (
    GUARDED,
    HERE,
    PIXEL,
    STRING,
    Part,
    get,
    listing,
    ref,
    refused,
    reply,
    shell,
    strict,
)

TAG = "MLflow's scoring protocol"
_ERROR = "MlflowError"

_NEWLINE = reply("The process lives, with a model or without: a newline.")
_INVOCATIONS: Part = {
    "tags": [TAG],
    "operationId": "invocations",
    "summary": "Probabilities, as MLflow gives them",
    "requestBody": {"required": True, "content": {"application/json": {"schema": ref("Invocation")}}},
    "responses": {
        "200": reply("`[N][C]`, the classes in the order of `class_names` in `/status`.", ref("Scored")),
        "415": reply("Another `Content-Type`, or none.", STRING, "text/plain"),
    }
    | refused(f"400 408 413 {GUARDED}", _ERROR),
    "x-codeSamples": [
        shell(
            "Two images",
            f"curl -s {HERE}/samples | head -c 1568 |",
            "  python3 -c 'import json, sys",
            "rows = [list(sys.stdin.buffer.read(28)) for row in range(56)]",
            """print(json.dumps({"inputs": [rows[:28], rows[28:]]}))' |""",
            f"  curl -s {HERE}/invocations -d @- \\",
            "  -H 'Content-Type: application/json'",
        )
    ],
}
_VERSION = "The version of MLflow whose answers it gives"
PATHS: Part = {
    "/invocations": {"post": _INVOCATIONS},
    "/ping": get(TAG, "ping", "Does it live?", _NEWLINE, refused("403", _ERROR), "/ping"),
    "/health": get(TAG, "health", "The same", _NEWLINE, refused("403", _ERROR), "/health"),
    "/version": get(TAG, "version", _VERSION, reply("The version alone."), refused(GUARDED, _ERROR), "/version"),
}

_TENSOR = listing(listing(listing(PIXEL, 28), 28), least=1)
_CELL = listing(PIXEL, 784)
_NO_OTHER = {"additionalProperties": False}
_SPLIT = strict({"columns": listing({}, 1), "data": listing(listing(_CELL, 1), least=1)}) | _NO_OTHER
_ROW = strict({"image": _CELL}) | _NO_OTHER
SCHEMAS: Part = {
    "Invocation": {
        "description": "Exactly one of `inputs`, `instances`, `dataframe_split`, `dataframe_records`. A frame has one "
        "column, of lists of 784 numbers, under any name.",
        "oneOf": [
            strict({"inputs": _TENSOR}),
            strict({"instances": _TENSOR}),
            strict({"dataframe_split": _SPLIT}),
            strict({"dataframe_records": listing(_ROW, least=1)}),
        ],
    },
    "Scored": strict({"predictions": strict({"probabilities": listing(listing({"type": "number"}))})}),
    "MlflowError": strict({"error_code": STRING, "message": STRING}, sqlstate=STRING, error_class=STRING),
}
