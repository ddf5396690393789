"""`make upgrade`: new images, and MLflow's database as they want it; or, where anything fails, where it was before.

The database is moved on in a copy, which then takes its place: the way back is a rename, whatever a migration did.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import database
from artifacts import check_place
from engine import Trouble, compose, docker, image_of, project
from keeping import PLACE, back_up, mlflow_version
from restoring import check_answers, check_counts, check_untrained, migrate
from sets import check_room
from starting import check_started, prepare
from turns import carry_out, finish, new_plan, note, pending, stop_writers, undo


def upgrade(arguments: list[str]) -> None:
    """A backup, new images, the database moved on, health, counts compared; also what an earlier one has begun."""
    check_started()
    if plan := pending("upgrade"):
        check_untrained()
        if not plan["forward"]:
            undo(plan, Trouble("was cut off"))
        print("an upgrade was cut off here; it goes on", flush=True)
        return _settle(plan)
    check_untrained()
    prepare()
    check_place()
    before = mlflow_version(image_of("mlflow"))
    made, _ = back_up(PLACE)
    print(f"backup: {made}", flush=True)
    plan = _keep_images()
    try:
        compose("build", *arguments)
        _stage(plan)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, nothing may stay stopped
        undo(plan, error)
    _settle(plan)
    print(f"upgraded: MLflow {before} -> {mlflow_version(image_of('mlflow'))}; the state before is in {made}")
    return None


def _keep_images() -> dict[str, Any]:
    """The plan, on disk: what goes wrong from here on is undone."""
    services = compose("config", "--services", capture_output=True).stdout.split()
    images = {f"{project()}/{service}": image_of(service) for service in services}
    for name, image in images.items():
        docker("tag", image, f"{name}:before")
    plan = new_plan("upgrade", f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}", images=images)
    note(plan)
    return plan


def _stage(plan: dict[str, Any]) -> None:
    """The next database: a copy of the present one, moved on to what the new images want."""
    stop_writers()
    check_room("the database's volume", database.room(), 2 * database.size())
    plan["counts"] = database.counts()
    database.make_next(database.CURRENT)
    migrate()
    check_counts(plan["counts"], database.counts(database.NEXT))


def _settle(plan: dict[str, Any]) -> None:
    carry_out(plan, lambda: check_answers(plan["counts"]))
    finish(plan)
    database.drop(database.kept_name(plan["time"]))
