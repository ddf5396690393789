"""WHAT is trained: TrainConfig, a value, and the recipes that have a name.

Where a run finds its data and on which device it runs are arguments of `train()`, not part of a recipe.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fmnist.errors import UserError, listing

Precision = Literal["auto", "fp32", "bf16"]


class TrainConfig(BaseModel):
    """Everything that decides what a training on given data ends with. The defaults are the recipe `fast`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    recipe: str = Field("fast", description="the name under which these values started out")
    model: str = Field("cnn", min_length=1, description="the architecture: a name in models.py, or module:function")
    epochs: int = Field(
        8, ge=1, le=100_000, description="passes over the training images, at most; the schedule spans them"
    )
    batch_size: int = Field(
        256, ge=2, le=1_000_000, description="images a step; batch normalization needs two at least"
    )
    learning_rate: float = Field(4e-3, gt=0, description="the schedule's highest learning rate")
    schedule: Literal["constant", "onecycle"] = Field(
        "onecycle", description="onecycle climbs and then falls to nothing, which is what makes short runs good"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "muon", description="muon makes the steps of hidden kernels orthogonal: fewer epochs for the same accuracy"
    )
    weight_decay: float = Field(0.05, ge=0, description="decoupled pull of kernels to zero (biases and norms are free)")
    dropout: float = Field(0.2, ge=0, le=2, description="factor on the model's own rates: short runs underfit at 1")
    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="share of a label's certainty that is spread over all classes, in training alone"
    )
    flip: bool = Field(True, description="mirror half of the images: most garments look the same from both sides")
    shift: int = Field(0, ge=0, lt=28, description="move each image by up to so many pixels, whichever way")
    cutout: int = Field(0, ge=0, lt=28, description="side, in pixels, of a black square at a random place; 0: none")
    average_flips: bool = Field(
        False, description="the model answers with the mean over an image and its mirror image, at twice the cost"
    )
    patience: int | None = Field(None, ge=1, description="stop after so many epochs without a lower validation loss")
    keep: Literal["last", "best"] = Field(
        "last", description="whose weights: the last epoch's, or the lowest val_loss's"
    )
    precision: Precision = Field("auto", description="bf16 where the processor has it in hardware, else fp32")
    seed: int = Field(0, ge=0, lt=2**32, description="start of all randomness but for the split's")

    def differences(self, other: Self) -> dict[str, tuple[Any, Any]]:
        """The fields in which `other` differs: name -> (own value, the other's)."""
        mine, theirs = self.model_dump(), other.model_dump()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


ORIGINAL = TrainConfig(
    recipe="original",
    epochs=100,
    batch_size=2000,
    learning_rate=1e-3,
    schedule="constant",
    optimizer="adamw",
    weight_decay=0,
    label_smoothing=0,
    dropout=1,
    flip=False,
    patience=10,
    keep="best",
)

RESNET = TrainConfig(recipe="resnet", model="resnet", epochs=34, shift=1, cutout=8, average_flips=True)

RECIPES = {"fast": TrainConfig(), "original": ORIGINAL, "resnet": RESNET}
"""`fast` is ours. `original` is the original's: Adam at 1e-3, early stop, no augmentation. `resnet` is for accuracy."""


def from_record(values: Any) -> Any:
    """What a run was recorded with, completed by what the fields that came later did in effect until then."""
    return {"optimizer": "adamw", "label_smoothing": 0} | values if isinstance(values, dict) else values


def make_config(recipe: str = "fast", **changes: Any) -> TrainConfig:
    """The named recipe with some fields changed. Raises UserError or pydantic's ValidationError (a ValueError).

    `recipe`: `fast`, `original`, `resnet`, or a .json file with a configuration, as a sweep writes it.
    """
    if recipe.endswith(".json"):
        base = _read_recipe(Path(recipe))
    elif recipe in RECIPES:
        base = RECIPES[recipe]
    else:
        known = f"{listing(RECIPES)}, or a sweep's best.json"
        raise UserError(f"recipe {recipe!r}", f"there is no such recipe; choose {known}")
    return TrainConfig(**(base.model_dump() | changes))


def _read_recipe(path: Path) -> TrainConfig:
    try:
        return TrainConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"recipe {path}", f"cannot be read ({error.strerror}); give one that is there") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise UserError(
            f"recipe {path}", f"is no configuration ({place}: {first['msg']}); give a sweep's best.json"
        ) from error
