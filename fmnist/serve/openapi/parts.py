"""What the OpenAPI document is made of.

Code samples are shell commands for a service at `HERE`; `/docs` puts the address in under which it was reached.
"""

from typing import Any

HERE = "http://localhost:8000"
Part = dict[str, Any]

STRING: Part = {"type": "string"}
NUMBER: Part = {"type": "number"}
INTEGER: Part = {"type": "integer"}
BOOLEAN: Part = {"type": "boolean"}
BINARY: Part = {"type": "string", "format": "binary"}
PIXEL: Part = {"type": "integer", "minimum": 0, "maximum": 255}
HEADERS: Part = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}

_WHYS = {
    "400": "Not what the model takes: the message says what is wrong and what to give.",
    "401": "The API key is missing or wrong.",
    "403": "Sent under a name that is not allowed (`FMNIST_ALLOWED_HOSTS`), or from another page.",
    "404": "There is no such thing.",
    "408": "The body took too long to arrive.",
    "413": "Too many bytes, pixels or images.",
    "415": "A `Content-Type` or `Content-Encoding` that is not known.",
    "503": "No model yet, or too much to do: `Retry-After` says when to come back.",
}
GUARDED = "401 403 503"
"""With these every route that asks for a key may refuse."""
BODY = "400 408 413 415"
"""With these in addition every route that reads a body."""


def ref(name: str) -> Part:
    """A schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def described(schema: Part, description: str) -> Part:
    return {**schema, "description": description}


def strict(required: Part, **optional: Part) -> Part:
    """An object with these properties, and perhaps further ones."""
    return {"type": "object", "required": list(required), "properties": required | optional}


def nullable(schema: Part) -> Part:
    return {"anyOf": [schema, {"type": "null"}]}


def listing(items: Part, length: int | None = None, least: int = 0) -> Part:
    """A list of so many, or of at least so many."""
    sizes = {"minItems": length, "maxItems": length} if length else {"minItems": least} if least else {}
    return {"type": "array", "items": items, **sizes}


def reply(description: str, schema: Part | None = None, kind: str = "application/json") -> Part:
    """An answer with a body of `kind`; without a schema, the kind alone is promised."""
    media = {} if schema is None else {"schema": schema}
    return {"description": description, "headers": HEADERS, "content": {kind: media}}


def refused(codes: str, schema: str = "Problem") -> Part:
    """The refusals with these codes, in their protocol's form."""
    kind = "application/problem+json" if schema == "Problem" else "application/json"
    return {code: reply(_WHYS[code], ref(schema), kind) for code in codes.split()}


def shell(label: str, *lines: str) -> Part:
    return {"lang": "Shell", "label": label, "source": "\n".join(lines)}


def get(tag: str, name: str, summary: str, ok: Part, refusals: Part, address: str, **more: Any) -> Part:
    """A path that is only read, for example at `address`."""
    about: Part = {"tags": [tag], "operationId": name, "summary": summary}
    sample = shell("Ask", f"curl -s {HERE}{address}")
    return {"get": about | more | {"responses": {"200": ok} | refusals, "x-codeSamples": [sample]}}


def parameter(name: str, where: str, schema: Part, description: str = "") -> Part:
    about: Part = {"name": name, "in": where, "schema": schema, "required": where == "path"}
    return about | ({"description": description} if description else {})
