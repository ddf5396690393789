"""The OpenAPI document of the whole service: what `/openapi.json` gives and `/docs` shows.

Written by hand, because bare ASGI has nothing to derive it from; tests hold it against the routes and their answers.
"""

from collections.abc import Iterable

from fmnist import __version__
from fmnist.serve.openapi import inference, own, scoring
from fmnist.serve.openapi.parts import STRING, Part, described

_TAGS = {
    own.ASK: "The service's own way to ask.",
    scoring.TAG: "What `mlflow models serve` speaks.",
    inference.TAG: "Version 2, REST: what KServe, Triton and their clients speak.",
    own.IMAGES: "For who has none at hand.",
    own.ITSELF: "What answers, how much there is to do, what can be asked.",
    own.PAGES: "For people.",
}
_ABOUT = """\
One model answers, the registry's champion or what the service was started with; `/predict` and `/v2` name its version.
Where there is an API key, send `Authorization: Bearer KEY`. A request may carry an `X-Request-Id` of letters, digits,
`-`, `_` and `.`, 64 at most; its answer and its log lines carry it too. Bodies may be gzip or deflate, as
`Content-Encoding` then says.
"""


def document(model_name: str, files: Iterable[str]) -> Part:
    """The whole. `model_name`: as registered; `files`: what the pages load from `/page/`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{model_name} as a service",
            "version": __version__,
            "summary": "What garment is in a picture.",
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"key": []}],
        "tags": [{"name": tag, "description": about} for tag, about in _TAGS.items()],
        "paths": own.own_paths(files) | scoring.PATHS | inference.inference_paths(model_name),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "headers": {"X-Request-Id": {"schema": described(STRING, "the request's name in the log")}},
            "schemas": own.SCHEMAS | scoring.SCHEMAS | inference.SCHEMAS,
        },
    }
