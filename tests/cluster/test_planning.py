from dataclasses import replace

from fmnist.cluster.planning import new_plan
from fmnist.data.dataset import Dataset, Split
from fmnist.recipe import TrainConfig
from fmnist.space import SPACE, Choice, narrowed


def test_a_plan_has_the_usual_space_and_what_the_data_are(dataset: Dataset) -> None:
    plan, data = new_plan(TrainConfig(epochs=3, seed=4), 7, [], lambda: dataset, "mine")
    assert data is dataset
    assert (plan.trials, plan.seed, plan.base.epochs, plan.name) == (7, 4, 3, "mine")
    assert plan.data["digest"] == dataset.digest
    expected = {**SPACE, "batch_size": Choice(values=(128, 256), why=SPACE["batch_size"].why)}
    assert plan.space == expected  # there are 320 images: 512 are too many, and nobody asked for them


def test_where_no_usual_batch_fits_the_recipes_own_is_kept(dataset: Dataset) -> None:
    few = replace(dataset, train=Split(dataset.train.images[:100], dataset.train.labels[:100]))
    plan, _ = new_plan(TrainConfig(batch_size=32), 7, [], lambda: few, None)
    assert "batch_size" not in plan.space
    assert plan.base.batch_size == 32


def test_a_field_with_one_value_is_not_searched(dataset: Dataset) -> None:
    plan, _ = new_plan(TrainConfig(), 7, ["batch_size=64", "dropout=0", "flip=yes,no"], lambda: dataset, None)
    assert (plan.base.batch_size, plan.base.dropout) == (64, 0)
    assert plan.space == {
        name: domain
        for name, domain in narrowed(SPACE, ["flip=yes,no"]).items()
        if name not in ("batch_size", "dropout")
    }
