"""Whatever a client sends, it gets an answer below 500, soon, and the service is none the larger for it.

`FUZZ` is how many requests are tried: a few hundred here, 5,000 in `make test-platform`, 100,000 by `make fuzz`.
"""

import asyncio
import gc
import gzip
import io
import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from fmnist.serve.limits import Limits

from .conftest import ListSource, ask, make_service

COUNT = int(os.environ.get("FUZZ", "300"))
GROWTH = 64 << 20
"""Bytes of memory that libraries may come to hold in the course of it, however many requests there are."""
Made = tuple[str, bytes, dict[str, str]]
INFER = "/v2/models/fashion-mnist/infer"


def encoded(rng: random.Random) -> bytes:
    """A picture of some size, mode and format, with what formats can carry."""
    side = lambda: rng.choice([1, 2, 27, 28, 29, 64, 300])  # noqa: E731
    mode = rng.choice(["L", "RGB", "RGBA", "LA", "P", "1", "I;16", "CMYK"])
    noise = Image.fromarray(np.frombuffer(rng.randbytes(64 * 64), np.uint8).reshape(64, 64)).resize((side(), side()))
    picture = noise.convert("RGB").convert(mode) if mode != "I;16" else noise.convert("I").convert(mode)
    kinds = {
        "CMYK": ["JPEG"],
        "I;16": ["PNG"],
        "LA": ["PNG"],
        "P": ["PNG"],
        "1": ["PNG"],
        "RGBA": ["PNG", "WEBP"],
    }
    kind = rng.choice(kinds.get(mode, ["PNG", "JPEG", "WEBP"]))
    file, options = io.BytesIO(), {}
    if kind == "JPEG":
        exif = Image.Exif()
        exif[0x0112] = rng.choice([0, 1, 3, 6, 8, 99])
        options["exif"] = exif.tobytes()
    elif (kind == "WEBP" or (kind == "PNG" and mode in ("RGB", "RGBA", "L"))) and rng.random() < 0.3:
        options |= {"save_all": True, "append_images": [picture] * 2}
    picture.save(file, kind, **options)
    return file.getvalue()


def bomb(rng: random.Random) -> bytes:
    """A small PNG that says it is a huge picture, or is one."""
    size = rng.choice([20_001, 50_000, 2**31 - 1])
    head = struct.pack(
        ">IIBBBBB", size, rng.choice([1, size]), rng.choice([1, 8, 16]), rng.choice([0, 2, 3, 6]), 0, 0, 0
    )

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )


def spoilt(rng: random.Random, content: bytes) -> bytes:
    """Cut short, with bits flipped, doubled, or with something put in."""
    kind = rng.randrange(5)
    if kind == 0 or not content:
        return content
    at = rng.randrange(len(content))
    if kind == 1:
        return content[:at]
    if kind == 2:
        changed = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    return content[:at] + (content if kind == 3 else rng.randbytes(20)) + content[at:]


def number(rng: random.Random) -> Any:
    return rng.choice(
        [0, 255, 256, 300, -1, 0.0, 0.5, 1e300, -0.0, 2**63, 2**64, 10**30, True, None, "1", "", [], {}, float("nan")]
    )


def nested(rng: random.Random) -> Any:
    """Numbers in lists, nearly as they should be."""
    rows, columns = rng.choice([(28, 28), (28, 28), (1, 784), (28, 27), (0, 0), (2, 3)])
    values: Any = [[rng.randrange(256) for _ in range(columns)] for _ in range(rows)]
    if rng.random() < 0.4:
        values = [value for row in values for value in row]
    for _ in range(rng.choice([0, 0, 1, 3])):
        if values:
            values[rng.randrange(len(values))] = number(rng)
    for _ in range(rng.choice([0, 0, 0, 1, 2, 40, 400])):
        values = [values]
    return values if rng.random() < 0.9 else {"a": values}


def pictures(rng: random.Random) -> Made:
    content = spoilt(rng, encoded(rng) if rng.random() < 0.85 else bomb(rng))
    return (
        "/predict",
        content,
        {"Content-Type": rng.choice(["image/png", "image/jpeg", "application/octet-stream", "image/x"])},
    )


def forms(rng: random.Random) -> Made:
    mark = rng.choice(["xx", "a b", "", "x" * 80])
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="f"; filename="{rng.choice(["a", "../a", "ä", ""])}"\r\n\r\n'
    )
    body = (
        b"".join(head.encode() + encoded(rng) + b"\r\n" for _ in range(rng.randint(0, 3))) + f"--{mark}--\r\n".encode()
    )
    return "/predict", spoilt(rng, body), {"Content-Type": f"multipart/form-data; boundary={mark}"}


def numbers(rng: random.Random) -> Made:
    key = rng.choice(["inputs", "inputs", "inputs", "instances", "dataframe_split", "input"])
    body: Any = {key: nested(rng)}
    if rng.random() < 0.1:
        body[rng.choice(["params", "x", "instances"])] = number(rng)
    text = json.dumps(body if rng.random() < 0.95 else nested(rng)).encode()
    return (
        rng.choice(["/predict", "/invocations"]),
        spoilt(rng, text) if rng.random() < 0.3 else text,
        {"Content-Type": "application/json"},
    )


def raw(rng: random.Random) -> Made:
    content = rng.randbytes(rng.choice([0, 1, 783, 784, 785, 784 * 3]))
    return (
        rng.choice(["/predict", "/invocations", INFER]),
        content,
        {"Content-Type": rng.choice(["", "text/csv", "x" * 300, "application/json"])},
    )


def tensors(rng: random.Random) -> Made:
    """Open Inference Protocol requests, JSON and binary."""
    count = rng.choice([0, 1, 2])
    tensor: Any = {
        "name": rng.choice(["images", "images", "x", 3]),
        "datatype": rng.choice(["UINT8", "UINT8", "FP32", "INT64", "BYTES", "BOOL", "X", None]),
        "shape": rng.choice(
            [[count, 28, 28], [count, 28, 28], [28, 28], [-1, 28, 28], [2**62, 28, 28], [], "a", [1.5]]
        ),
    }
    tail = b""
    if rng.random() < 0.5:
        tail = rng.randbytes(rng.choice([784 * count, 784, 783, 0]))
        tensor["parameters"] = {"binary_data_size": rng.choice([len(tail), len(tail), -1, 10**12, "x", None])}
    else:
        tensor["data"] = nested(rng)
    body: Any = {"inputs": [tensor] * rng.choice([1, 1, 1, 0, 2])}
    if rng.random() < 0.3:
        body["outputs"] = rng.choice(
            [[], [{"name": "x"}], [{"name": "probabilities", "parameters": {"binary_data": True}}], 3]
        )
    if rng.random() < 0.3:
        body["parameters"] = rng.choice([{"binary_data_output": True}, {"binary_data_output": 3}, [], None])
    head = json.dumps(body).encode()
    length = rng.choice([len(head), len(head), len(head), 0, -1, 10**9, "x"])
    headers = {"Inference-Header-Content-Length": str(length)} if tail or rng.random() < 0.2 else {}
    return INFER, spoilt(rng, head + tail) if rng.random() < 0.3 else head + tail, headers


KINDS: list[Callable[[random.Random], Made]] = [pictures, pictures, forms, numbers, raw, tensors]


def packed(rng: random.Random, made: Made) -> Made:
    path, body, headers = made
    if rng.random() < 0.1:
        squeezed = rng.choice([gzip.compress, zlib.compress])(rng.choice([body, bytes(3 * 10**7)]))
        return path, spoilt(rng, squeezed), headers | {"Content-Encoding": rng.choice(["gzip", "deflate", "br", ""])}
    return made


def test_no_request_is_answered_with_a_5xx_or_makes_the_service_grow(source: ListSource, tmp_path: Path) -> None:
    service = make_service(source, Limits(seconds=60))

    async def send(seed: int) -> None:
        rng = random.Random(seed)
        path, body, headers = packed(rng, rng.choice(KINDS)(rng))
        reply = await ask(service, "POST", path, body, headers)
        if not 200 <= reply.status < 500:
            (tmp_path / "body").write_bytes(body)
            pytest.fail(f"seed {seed}: {path} {headers} was answered with {reply.status} {reply.body[:200]!r}")

    async def send_all(seeds: range) -> None:
        for seed in seeds:
            await send(seed)

    asyncio.run(send_all(range(COUNT // 5)))  # what libraries fetch once is fetched now
    gc.collect()
    before = psutil.Process().memory_info().rss
    asyncio.run(send_all(range(COUNT // 5, COUNT)))
    gc.collect()
    assert psutil.Process().memory_info().rss - before < GROWTH
    service.close()
