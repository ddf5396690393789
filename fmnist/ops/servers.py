"""The servers beside MLflow's: TensorBoard, and the service."""

import http.client
import json
from contextlib import suppress
from pathlib import Path

from fmnist.errors import one_line
from fmnist.ops.finding import Finding
from fmnist.ops.remote import ask


def tensorboard(port: int, logs: Path, *, needed: bool) -> Finding:
    there = {folder.name for folder in logs.glob("*") if any(folder.glob("events.*"))}
    try:
        status, answer = ask("GET", f"http://127.0.0.1:{port}", "/data/runs")
        shown = set(json.loads(answer)) if status == http.client.OK else set()
    except (OSError, ValueError, http.client.HTTPException):
        if needed:
            return Finding("TensorBoard", "bad", "does not answer", "make logs ARGS=tensorboard")
        return Finding("TensorBoard", "off", f"does not run; {len(there)} runs in {logs}")
    if missing := there - shown:
        told = f"shows {len(shown)} runs, {len(missing)} in {logs} are missing"
        return Finding("TensorBoard", "bad", told, "reload it in a minute")
    return Finding("TensorBoard", "ok", f"shows the {len(there)} runs in {logs}")


def service(port: int, *, needed: bool) -> Finding:
    """What answers, and what it complains of: it goes on, so that is no more than a warning."""
    status, about = 0, None
    with suppress(OSError, ValueError, http.client.HTTPException):
        status, answer = ask("GET", f"http://127.0.0.1:{port}", "/status")
        about = json.loads(answer)
    if status == http.client.UNAUTHORIZED:
        return Finding("service", "ok", "answers, to those who have its key")
    if not isinstance(about, dict) or "registry_trouble" not in about:  # somebody else's port, maybe
        if needed:
            return Finding("service", "bad", "does not answer", "make logs ARGS=api")
        return Finding("service", "off", "does not run")
    model, trouble, refusal = about.get("model"), about["registry_trouble"], about.get("refusal")
    found = f"version {model['version']} answers" if model else "answers; it has no model yet"
    if trouble:
        return Finding("service", "warning", f"{found}; {one_line(trouble)}", "it goes on, and asks again by itself")
    if refusal:
        return Finding("service", "warning", f"{found}; {one_line(refusal['reason'])}", "fmnist promote another one")
    return Finding("service", "ok" if model else "off", found)
