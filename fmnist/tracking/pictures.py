"""What belongs to a record besides its numbers: pictures, as PNG, rendered once, whichever sink asks first; files."""

import json
import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fmnist.plots import Mistake, as_png, confusion_picture, mistakes_picture
from fmnist.scores import class_table
from fmnist.tracking.journal import Record
from fmnist.tracking.records import decode

_ONE_AT_A_TIME = threading.Lock()  # the sinks' threads: the second finds what the first has made


def matrix_png(record: Record, names: Sequence[str]) -> bytes:
    """The confusion matrix of an epoch (validation), or of the end (test)."""
    title = "test" if record["key"] == "end" else f"validation, epoch {record['epoch']}"
    with _ONE_AT_A_TIME:
        return _matrix(json.dumps(record["confusion"]), tuple(names), title)


def mistakes_png(record: Record) -> bytes:
    """The worst mistakes, of the end's record."""
    with _ONE_AT_A_TIME:
        return _mistakes(json.dumps(record["mistakes"]))


@lru_cache(maxsize=2)
def _matrix(confusion: str, names: tuple[str, ...], title: str) -> bytes:
    return as_png(confusion_picture(np.asarray(json.loads(confusion)), names, title))


@lru_cache(maxsize=1)
def _mistakes(entries: str) -> bytes:
    mistakes = [Mistake(**entry | {"image": decode(entry["image"])}) for entry in json.loads(entries)]
    return as_png(mistakes_picture(mistakes, "the worst mistakes on the test images"))


def matrix_files(name: str, record: Record, names: list[str]) -> dict[str, bytes]:
    """File name -> content: the confusion matrix as numbers, and to look at."""
    numbers = json.dumps({"class_names": names, "rows_true_columns_predicted": record["confusion"]})
    return {f"{name}.json": numbers.encode(), f"{name}.png": matrix_png(record, names)}


def report_files(record: Record, names: list[str]) -> dict[str, bytes]:
    """File name -> content, of a run's end: scores by class, the surest mistakes, and what its model has to answer."""
    return {
        "classes.csv": class_table(record["confusion"], names).encode(),
        "mistakes.png": mistakes_png(record),
        "golden.json": json.dumps(record["golden"]).encode(),
    }
