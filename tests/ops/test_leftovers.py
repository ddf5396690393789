import pytest

from fmnist.ops.garbage import find_garbage
from fmnist.ops.leftovers import SCRATCH, UNBEGUN, Yard
from fmnist.tracking.wiring import Destinations

from ..helpers import free_port
from .places import LITTER, RUNS, Place, litter

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it uses warn of their own future


def test_what_belongs_to_nothing_goes_once_it_is_old(place: Place) -> None:
    litter(place)
    assert place.find().pieces == []
    place.age(6)
    assert place.find().pieces == []
    place.age()
    assert {kind: place.named(kind) for kind in LITTER} == LITTER
    assert sorted(place.clear()) == sorted(name for names in LITTER.values() for name in names)
    left = {path.name for path in (*(place.home / "runs").iterdir(), *place.yard.destinations.logs.iterdir())}
    assert left == {*RUNS, "mine", "20250101-000000-00007"}
    assert len(list((place.home / "models").iterdir())) == 1


def test_where_mlflow_does_not_answer_only_what_needs_no_answer_goes(place: Place) -> None:
    litter(place)
    place.age()
    places = place.yard.destinations
    away = Destinations(f"http://127.0.0.1:{free_port()}", "a", "a", places.artifacts, places.logs)
    found = find_garbage(Yard(place.home, away, 7))
    assert {piece.kind for piece in found.pieces} == {UNBEGUN, SCRATCH}
    assert "does not answer" in str(found.trouble)
    gone = find_garbage(
        Yard(place.home, Destinations("sqlite:////gone.db", "a", "a", places.artifacts, places.logs), 7)
    )
    assert {piece.kind for piece in gone.pieces} == {UNBEGUN, SCRATCH}
    assert "sqlite:////gone.db: is not there; restore it" in str(gone.trouble)


def test_what_another_mlflow_may_know_is_left(place: Place) -> None:
    litter(place)
    place.sent(RUNS[0], "mlflow http://localhost:5000")
    place.age()
    assert {piece.kind for piece in place.find().pieces} == {UNBEGUN, SCRATCH}
    assert any("mlflow http://localhost:5000 may know them" in told for told in place.find().kept)
