import pytest

from fmnist.errors import UserError
from fmnist.recipe import RECIPES, TrainConfig
from fmnist.space import FIXED, SPACE, Choice, Range, check_space, narrowed, placed, point


def test_the_space_is_of_fields_that_may_be_searched_and_each_says_why() -> None:
    assert set(SPACE) <= set(TrainConfig.model_fields) - set(FIXED)
    assert set(FIXED) <= set(TrainConfig.model_fields)
    assert all(domain.why for domain in SPACE.values())


def test_the_space_holds_what_a_recipe_may_hold_and_the_recipe_itself() -> None:
    check_space(SPACE)
    assert point(SPACE, RECIPES["fast"]) == {name: getattr(TrainConfig(), name) for name in SPACE}
    assert point(SPACE, RECIPES["original"]) is None  # its batches are larger


@pytest.mark.parametrize(
    "domain",
    [Range(low=0.1, high=2.5), Range(low=-1, high=1), Choice(values=(0.1, -0.1)), Range(low=0, high=float("inf"))],
)
def test_a_range_that_a_recipe_would_refuse_is_noticed(domain: Range | Choice) -> None:
    with pytest.raises(UserError, match=r"--space dropout .* is (too|no finite)"):
        check_space({"dropout": domain})


def test_a_range_is_narrowed_and_stays_of_its_kind() -> None:
    space = narrowed(SPACE, ["learning_rate=2e-3..8e-3", "label-smoothing = 0..0.1"])
    assert space["learning_rate"] == Range(low=2e-3, high=8e-3, log=True, why="asked for")
    assert space["label_smoothing"] == Range(low=0, high=0.1, why="asked for")
    assert space["dropout"] is SPACE["dropout"]
    assert list(space) == list(SPACE)


def test_from_nothing_there_is_no_logarithm() -> None:
    assert narrowed(SPACE, ["weight_decay=0..0.1"])["weight_decay"] == Range(low=0, high=0.1, why="asked for")


def test_values_have_the_fields_type() -> None:
    space = narrowed(SPACE, ["batch_size=64,128", "flip=yes,no", "optimizer=adamw,muon", "dropout=0"])
    values = {name: domain.values for name, domain in space.items() if isinstance(domain, Choice)}
    assert values == {
        "batch_size": (64, 128),
        "flip": (True, False),
        "optimizer": ("adamw", "muon"),
        "dropout": (0.0,),
    }
    assert narrowed(SPACE, ["batch_size=64..512"])["batch_size"] == Range(low=64, high=512, whole=True, why="asked for")


@pytest.mark.parametrize(
    ("wish", "problem"),
    [
        ("learning_rate", "is no FIELD=LOW..HIGH and no FIELD=A,B,C; give one of them"),
        ("=1..2", "is no FIELD=LOW..HIGH and no FIELD=A,B,C; give one of them"),
        ("colour=1..2", "--space colour: there is no such field; choose model, batch_size, "),
        ("seed=1,2,3", "--space seed: would be a search for luck; give --seed"),
        ("epochs=1..3", "--space epochs: is what a trial may cost; give --epochs"),
        ("dropout=0.3..0.1", "its low end is not below its high end; turn it round"),
        ("dropout=0.1..0.1", "its low end is not below its high end; turn it round"),
        ("dropout=0..3", "--space dropout 3: is too large; give at most 2"),
        ("dropout=0..many", "--space dropout many: is no number; give one"),
        ("dropout=nan..1", "--space dropout nan: is no finite number; give one"),
        ("batch_size=1,64", "--space batch_size 1: is too small; give at least 2"),
        ("batch_size=64,64.5", "--space batch_size 64.5: is no whole number; give one"),
        ("batch_size=64,64", "names a value twice; leave one out"),
        ("optimizer=adamw..muon", "is no range of numbers; list its values: A,B,C"),
        ("optimizer=sgd", "--space optimizer sgd: is not known; give 'adamw' or 'muon'"),
    ],
)
def test_what_cannot_be_searched_is_told_in_one_line(wish: str, problem: str) -> None:
    with pytest.raises(UserError) as told:
        narrowed(SPACE, [wish])
    assert problem in str(told.value)


def test_a_place_in_the_space_makes_a_recipe() -> None:
    config = placed(RECIPES["fast"], {"dropout": 0.4, "batch_size": 512})
    assert RECIPES["fast"].differences(config) == {"dropout": (0.2, 0.4), "batch_size": (256, 512)}
