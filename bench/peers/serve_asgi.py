"""A peer: the least that answers, bare ASGI and ONNX Runtime; no limits, no checks, no metrics, no ids, no batching.

MODEL=model.onnx uvicorn serve_asgi:app
"""

import io
import json
import os

import numpy as np
import onnxruntime
import orjson
from PIL import Image

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1  # the quickest for one image
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
INPUT = session.get_inputs()[0].name
NAMES = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])


def image_of(content_type, body):
    if content_type == b"application/json":
        return np.array(orjson.loads(body)["inputs"], np.uint8)
    if content_type == b"image/png":
        return np.asarray(Image.open(io.BytesIO(body)).convert("L"))
    return np.frombuffer(body, np.uint8)


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    content_type = dict(scope["headers"])[b"content-type"]
    image = image_of(content_type, body).reshape(1, 28, 28)
    row = session.run(None, {INPUT: image})[0][0]
    answer = orjson.dumps({"label": NAMES[row.argmax()], "probabilities": dict(zip(NAMES, row.tolist(), strict=True))})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
