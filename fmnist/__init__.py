"""Fashion MNIST as a Service: train, track and serve a model of garments.

from fmnist import load_data, TrainConfig, train, evaluate, Predictor
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmnist.api import evaluate, load_data, train
    from fmnist.predictor import Predictor
    from fmnist.recipe import TrainConfig

__version__ = "0.1.0"
__all__ = ["Predictor", "TrainConfig", "evaluate", "load_data", "train"]

# Imported at first use, so that `import fmnist` costs next to nothing.
_HOMES = {
    "Predictor": "fmnist.predictor",
    "TrainConfig": "fmnist.recipe",
    "evaluate": "fmnist.api",
    "load_data": "fmnist.api",
    "train": "fmnist.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
