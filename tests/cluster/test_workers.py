"""What workers are asked for, and what each looks at before it begins; no Ray is started."""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fmnist import TrainConfig
from fmnist.cluster import workers
from fmnist.errors import Failure

CONFIG = TrainConfig(epochs=1, batch_size=64, precision="fp32")


@pytest.mark.parametrize(("device", "placed"), [("cpu", "SPREAD"), ("cuda", "PACK")])
def test_workers_go_to_as_many_machines_as_there_are_but_for_gpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, placed: str
) -> None:
    ray, torch_trainer = pytest.importorskip("ray"), pytest.importorskip("ray.train.torch")
    made: list[dict[str, Any]] = []

    class Trainer:
        def __init__(self, work: object, **options: Any) -> None:
            made.append(options)

        def fit(self) -> None: ...

    monkeypatch.setattr(torch_trainer, "TorchTrainer", Trainer)
    monkeypatch.setattr("fmnist.cluster.connection.session_folder", lambda: str(tmp_path))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(current_actor=None))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    workers.run_workers(workers.Plan(CONFIG, 10, device, 2, None, None))
    (options,) = made
    assert options["scaling_config"].placement_strategy == placed
    assert options["torch_config"].timeout_s < 600  # Ray's own half hour is for nobody who waits


def test_a_node_without_bfloat16_is_told_of_before_it_emulates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "has_bf16", lambda device: False)
    config = CONFIG.model_copy(update={"precision": "bf16"})
    plan = workers.Plan(config, 10, "cpu", 2, None, None)
    with pytest.raises(Failure, match=r"node .*: has no bfloat16, which the driver's machine has; use others, go on"):
        workers.check_precision(plan)
    workers.check_precision(dataclasses.replace(plan, asked=True))
