"""The records of a run's beginning and end. Those between are its epochs', made by `training.py`."""

import base64
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist.data.dataset import Split
from fmnist.errors import Failure
from fmnist.files import sha256_of
from fmnist.plots import Mistake
from fmnist.run import Result, Run
from fmnist.tracking.journal import Record

MISTAKES = 24
GOLDEN = 8


def start_record(run: Run) -> Record:
    """Who trains what, when, with which data and versions."""
    about = run.about
    return {
        "key": "start",
        "time": datetime.fromisoformat(about.created).timestamp(),
        "run_id": run.id,
        "params": about.config.model_dump(),
        "data": about.data,
        "name": about.name,
        "note": about.note,
        "tags": about.tags,
        "facts": {
            "device": about.device,
            "precision": about.precision,
            "workers": str(about.workers),
            **about.versions,
        },
    }


def end_record(result: Result, mistakes: Sequence[Mistake], golden: dict[str, Any]) -> Record:
    """What a run ended with; its model is `model.onnx` beside the journal, known by its SHA-256."""
    return {
        "key": "end",
        "time": result.ended or time.time(),  # it may be told later, of a run that was not tracked
        "epochs": result.epochs,
        "scores": {f"test_{name}": value for name, value in result.test._asdict().items()},
        "val": result.val._asdict(),
        "confusion": result.test_confusion,
        "model_sha256": result.model_sha256,
        "mistakes": [mistake._replace(image=encode(mistake.image))._asdict() for mistake in mistakes],  # type: ignore[arg-type]
        "golden": golden,
    }


def model_of(folder: Path, record: Record) -> Path:
    """The model that a run's end names, in the run's folder, if it is that one. Raises Failure."""
    path = folder / "model.onnx"
    if not path.exists():
        raise Failure(path, "is not there; restore it or copy the run's folder whole, then sync")
    if sha256_of(path) != record["model_sha256"]:
        raise Failure(path, "is damaged: its SHA-256 is not the one its run ended with; restore it, then sync")
    return path


def worst_mistakes(split: Split, probabilities: NDArray[np.float32], names: Sequence[str]) -> list[Mistake]:
    """The images that the model most surely takes for something else, worst first."""
    predicted = probabilities.argmax(1)
    wrong = np.flatnonzero(predicted != split.labels)
    worst = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:MISTAKES]
    return [
        Mistake(split.images[i], names[split.labels[i]], names[predicted[i]], float(probabilities[i, predicted[i]]))
        for i in worst
    ]


def golden_batch(split: Split, answer: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> dict[str, Any]:
    """A few images and the model's answers, by which whoever loads the model later knows that it answers the same."""
    images = split.images[np.linspace(0, len(split) - 1, min(GOLDEN, len(split))).astype(int)]
    return {"images": [encode(image) for image in images], "probabilities": answer(images).tolist()}


def encode(image: NDArray[np.uint8]) -> str:
    """uint8 [28, 28] -> text."""
    return base64.b64encode(np.ascontiguousarray(image).tobytes()).decode()


def decode(text: str) -> NDArray[np.uint8]:
    """What `encode` gave -> uint8 [28, 28]."""
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(28, 28)
