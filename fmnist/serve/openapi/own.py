"""The service's own routes."""

from collections.abc import Iterable

from fmnist.serve.openapi.parts import (
    BINARY,
    BODY,
    BOOLEAN,
    GUARDED,
    HEADERS,
    HERE,
    INTEGER,
    NUMBER,
    PIXEL,
    STRING,
    Part,
    described,
    get,
    listing,
    nullable,
    parameter,
    ref,
    refused,
    reply,
    shell,
    strict,
)

ASK, IMAGES, ITSELF, PAGES = "Predictions", "Test images", "The service itself", "Pages"

_PREDICT: Part = {
    "tags": [ASK],
    "operationId": "predict",
    "summary": "What garments are these?",
    "description": "Pictures of any size are made what the model was trained on: trimmed to the garment, 28x28, grey, "
    "light on black. Numbers are taken as they are: 0 is the background.",
    "parameters": [
        parameter(
            "top",
            "query",
            {"type": "integer", "minimum": 1, "maximum": 1000, "default": 3},
            "how many classes `top` names, the likeliest first",
        ),
        parameter(
            "image",
            "query",
            {"enum": ["0", "1", "false", "true"], "default": "0"},
            "whether to give back the 28x28 image that the model saw",
        ),
    ],
    "requestBody": {
        "required": True,
        "content": {
            **{f"image/{kind}": {"schema": BINARY} for kind in ("png", "jpeg", "webp")},
            "multipart/form-data": {"schema": ref("Form")},
            "application/json": {"schema": ref("Inputs")},
            "application/octet-stream": {
                "schema": described(BINARY, "784 bytes an image, row by row; or a PNG, JPEG or WebP.")
            },
        },
    },
    "responses": {"200": reply("An answer for each image, in their order.", ref("Predictions"))}
    | refused(f"{BODY} {GUARDED}"),
    "x-codeSamples": [
        shell(
            "A picture",
            f"curl -s {HERE}/samples/42 -o garment.png",
            f"curl -s {HERE}/predict --data-binary @garment.png",
        ),
        shell(
            "Several at once",
            f"curl -s '{HERE}/samples/[6-8]' -o 'garment#1.png'",
            f"curl -s {HERE}/predict -F a=@garment6.png \\",
            "  -F b=@garment7.png -F c=@garment8.png",
        ),
        shell(
            "Numbers, as JSON",
            f"curl -s {HERE}/samples | head -c 784 |",
            "  python3 -c 'import json, sys",
            """print(json.dumps({"inputs": list(sys.stdin.buffer.read())}))' |""",
            f"  curl -s {HERE}/predict -d @- \\",
            "  -H 'Content-Type: application/json'",
        ),
        shell(
            "Numbers, as bytes; and what the model saw",
            f"curl -s {HERE}/samples | head -c 784 |",
            f"  curl -s '{HERE}/predict?image=1' --data-binary @-",
        ),
    ],
}

_FREE = refused("403")
_FIXED = {"304": {"description": "What `If-None-Match` names is what there is.", "headers": HEADERS}} | _FREE
_HTML = reply("HTML.", STRING, "text/html")
_COUNTS = reply("Requests by route and code, times, batch sizes, the queue, the model.", STRING, "text/plain")


def own_paths(files: Iterable[str]) -> Part:
    """`files`: what the pages load from `/page/`."""
    bytes_ = reply("784 bytes an image.", BINARY, "application/octet-stream")
    about = "Six of each class from Fashion-MNIST's test split: image `n` is of class `n // 6`."
    png, place = reply("28x28, grey.", BINARY, "image/png"), {"type": "integer", "minimum": 0, "maximum": 59}
    number = parameter("number", "path", place, "its place in `/samples`")
    part, file = reply("A script, a style sheet, an icon.", None, "*/*"), parameter("file", "path", {"enum": [*files]})
    status = reply("Whether or not there is a model.", ref("Status"))
    itself = reply("OpenAPI 3.1.", {"type": "object"})
    return {
        "/predict": {"post": _PREDICT},
        "/samples": get(IMAGES, "samples", "60 test images", bytes_, _FIXED, "/samples -o images", description=about),
        "/samples/{number}": get(
            IMAGES, "sample", "One, as a picture", png, refused("403 404"), "/samples/42 -o 42.png", parameters=[number]
        ),
        "/status": get(ITSELF, "status", "What answers, and what is wrong", status, refused(GUARDED), "/status"),
        "/metrics": get(ITSELF, "metrics", "Counts and times, for Prometheus", _COUNTS, refused(GUARDED), "/metrics"),
        "/openapi.json": get(ITSELF, "document", "This description", itself, _FIXED, "/openapi.json"),
        "/": get(PAGES, "page", "The page for people", _HTML, _FIXED, "/"),
        "/docs": get(PAGES, "docs", "This page", _HTML, _FIXED, "/docs"),
        "/page/{file}": get(
            PAGES, "file", "What the pages load", part, _FIXED | refused("404"), "/page/style.css", parameters=[file]
        ),
    }


_FLAT, _SQUARE = listing(PIXEL, 784), listing(listing(PIXEL, 28), 28)
_SHARE: Part = {"type": "number", "minimum": 0, "maximum": 1}
_MODEL: Part = strict(
    {
        "version": STRING,
        "run_id": STRING,
        "mlflow_run": STRING,
        "created": described(NUMBER, "Unix time"),
        "sha256": STRING,
        "scores": {"type": "object", "additionalProperties": NUMBER},
        "class_names": listing(STRING),
        "confusion": nullable(described(listing(listing(INTEGER)), "rows true, columns predicted")),
        "from_cache": described(BOOLEAN, "whether it was kept from before a restart"),
    }
)
SCHEMAS: Part = {
    "Inputs": {
        "description": "Whole numbers, 0 is the background: `784` or `28x28` an image, one image or several.",
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {"inputs": {"anyOf": [_FLAT, _SQUARE, listing(_FLAT, least=1), listing(_SQUARE, least=1)]}},
    },
    "Form": {
        "description": "Files, each a PNG, JPEG or WebP, under any names; fields that are no files are left out.",
        "type": "object",
        "additionalProperties": BINARY,
        "minProperties": 1,
    },
    "Prediction": strict(
        {
            "label": STRING,
            "probability": _SHARE,
            "top": described(listing(strict({"label": STRING, "probability": _SHARE})), "the likeliest first"),
            "probabilities": {"type": "object", "additionalProperties": _SHARE, "description": "of every class"},
        },
        image=_SQUARE,
    ),
    "Predictions": strict(
        {
            "id": described(STRING, "the request's"),
            "model": strict({"name": STRING, "version": STRING}),
            "predictions": listing(ref("Prediction")),
        }
    ),
    "Status": strict(
        {
            "name": described(STRING, "of the registered model"),
            "ready": described(BOOLEAN, "whether there is a model, and the service is not being stopped"),
            "looked": described(BOOLEAN, "whether the registry was looked into since the start"),
            "model": nullable(_MODEL),
            "absence": nullable(described(STRING, "why there is no model, and what to do")),
            "registry_trouble": nullable(described(STRING, "why the registry can't be asked")),
            "refusal": nullable(strict({"version": STRING, "reason": STRING, "time": described(NUMBER, "Unix time")})),
            "swaps": described(INTEGER, "how often a new model took over"),
            "links": {"type": "object", "additionalProperties": STRING},
            "limits": strict({"body": described(INTEGER, "bytes"), "images": INTEGER}),
        }
    ),
    "Problem": described(
        strict(
            {
                "type": STRING,
                "title": STRING,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": STRING,
                "id": described(STRING, "the request's"),
            }
        ),
        "RFC 9457. `detail` is what was given, what is wrong, what to do.",
    ),
}
