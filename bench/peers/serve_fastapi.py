"""A peer: FastAPI and ONNX Runtime as one writes it: a model of the request, a model of the answer, three routes.

MODEL=model.onnx uvicorn serve_fastapi:app
"""

import io
import json
import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request
from PIL import Image
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1  # the quickest for one image
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
INPUT = session.get_inputs()[0].name
NAMES = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
app = FastAPI()


class Picture(BaseModel):
    inputs: list[int]


class Answer(BaseModel):
    label: str
    probabilities: dict[str, float]


def answer(image: np.ndarray) -> Answer:
    row = session.run(None, {INPUT: image.reshape(1, 28, 28)})[0][0]
    return Answer(label=NAMES[row.argmax()], probabilities=dict(zip(NAMES, row.tolist(), strict=True)))


@app.post("/predict/json")  # `async def`: with `def`, in threads, it is a quarter slower
async def predict_json(picture: Picture) -> Answer:
    return answer(np.array(picture.inputs, np.uint8))


@app.post("/predict/raw")
async def predict_raw(request: Request) -> Answer:
    return answer(np.frombuffer(await request.body(), np.uint8))


@app.post("/predict/png")
async def predict_png(request: Request) -> Answer:
    return answer(np.asarray(Image.open(io.BytesIO(await request.body())).convert("L")))
