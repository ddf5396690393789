from pathlib import Path

import pytest
from pydantic import ValidationError

from fmnist.errors import UserError
from fmnist.recipe import ORIGINAL, RECIPES, TrainConfig, make_config


def test_a_config_is_a_frozen_keyword_only_value() -> None:
    assert TrainConfig(seed=1) == TrainConfig(seed=1) != TrainConfig(seed=2)
    with pytest.raises(ValidationError):
        TrainConfig().seed = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        TrainConfig(3)  # type: ignore[call-arg]


def test_every_field_says_why() -> None:
    assert all(field.description for field in TrainConfig.model_fields.values())


def test_the_original_is_the_original() -> None:
    assert (ORIGINAL.epochs, ORIGINAL.batch_size, ORIGINAL.patience, ORIGINAL.keep) == (100, 2000, 10, "best")
    assert (ORIGINAL.learning_rate, ORIGINAL.dropout, ORIGINAL.flip, ORIGINAL.weight_decay) == (1e-3, 1, False, 0)


def test_recipes_by_name() -> None:
    assert RECIPES["fast"] == TrainConfig()
    assert make_config("original", epochs="3") == ORIGINAL.model_copy(update={"epochs": 3})
    with pytest.raises(
        UserError,
        match=r"recipe 'x': there is no such recipe; choose fast, original or resnet, or a sweep's best\.json",
    ):
        make_config("x")


def test_differences_are_by_field() -> None:
    assert TrainConfig().differences(TrainConfig(seed=4, epochs=2)) == {
        "epochs": (TrainConfig().epochs, 2),
        "seed": (0, 4),
    }


def test_a_config_survives_json() -> None:
    config = make_config("original", seed=7)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot be read"), ("{", "the whole"), ('{"seed": -1}', "seed")]
)
def test_a_file_that_is_no_recipe_is_told(tmp_path: Path, content: str | None, problem: str) -> None:
    file = tmp_path / "best.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=problem):
        make_config(str(file))


def test_a_recipe_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "best.json"
    file.write_text(TrainConfig(dropout=0.5).model_dump_json())
    assert make_config(str(file), seed=3) == TrainConfig(dropout=0.5, seed=3)
