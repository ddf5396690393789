"""What logs to the platform's MLflow and counts what was acknowledged."""

import threading
import time
from typing import Any

import requests


class Writer(threading.Thread):
    """Logs one metric, step by step, each until it is acknowledged."""

    def __init__(self, platform: Any, run_id: str, key: str) -> None:
        super().__init__(daemon=True)
        self.platform, self.about, self.acknowledged, self.ending = platform, {"run_id": run_id, "key": key}, 0, False

    def run(self) -> None:
        while not self.ending:
            step = self.acknowledged + 1
            try:
                moment = int(time.time() * 1000)
                self.platform.mlflow_post("runs/log-metric", **self.about, value=step, step=step, timestamp=moment)
            except requests.RequestException:
                time.sleep(0.2)
            else:
                self.acknowledged = step

    @property
    def steps(self) -> set[int]:
        """Those that MLflow has."""
        points = self.platform.mlflow_get("metrics/get-history", **self.about, metric_key=self.about["key"])["metrics"]
        return {int(point["step"]) for point in points}
