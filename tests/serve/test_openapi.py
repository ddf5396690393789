"""The OpenAPI document held against the service: its routes, its answers to made-up requests, its shell commands."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import negative_data_rejection, positive_data_acceptance

from fmnist.serve.openapi import document as document_of
from fmnist.serve.openapi.parts import HERE
from fmnist.serve.service import Service

from .conftest import ListSource, make_service
from .test_server import Running

BYTES = ("application/octet-stream", "multipart/form-data", "image/png", "image/jpeg", "image/webp")
"""Bodies of which the document cannot say everything: made-up ones are mostly refused."""


@pytest.fixture
def document(call: Any) -> Any:
    return call("GET", "/openapi.json").json


def operations(document: Any) -> list[Any]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def test_it_describes_every_route_and_no_other(document: Any, service: Service) -> None:
    described = {(method.upper(), path) for path, about in document["paths"].items() for method in about}
    described.remove(("GET", "/page/{file}"))
    served = {(method, path) for method, path in service.app.routes if method != "HEAD" and "/page/" not in path}
    assert described == served


def test_every_operation_has_a_name_a_summary_a_known_tag_and_a_command(document: Any) -> None:
    names = [operation["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in document["tags"]}
    for operation in operations(document):
        assert operation["summary"]
        assert tags.issuperset(operation["tags"])
        assert all(bare(HERE) in sample["source"] for sample in operation["x-codeSamples"])


schema = schemathesis.openapi.from_dict(document_of("fashion-mnist", ["page.js"]))
schema.config.update(base_url="http://localhost")


@pytest.fixture(scope="module")
def answering(models: list[Path]) -> Iterator[Service]:
    service = make_service(ListSource(*models))
    yield service
    service.close()


@schema.parametrize()
@settings(max_examples=10, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_answers_are_what_the_document_says(answering: Service, case: Any) -> None:
    unsaid = []
    if case.media_type in BYTES or "infer" in case.path:  # that a tensor's data are as many as its shape says
        unsaid.append(positive_data_acceptance)
    if case.path == "/invocations":  # that MLflow takes 0.5 for 0, and minds nothing that it doesn't know
        unsaid.append(negative_data_rejection)
    case.call_and_validate(app=answering.app, excluded_checks=unsaid)


@pytest.mark.skipif(not shutil.which("curl"), reason="its commands are curl's")
def test_every_command_of_the_document_works_as_it_stands(document: Any, models: list[Path], tmp_path: Path) -> None:
    server = Running(models[0], tmp_path / "var")
    here = f"http://localhost:{server.port}"
    run = {"Shell": ["sh", "-ec"], "Python": [sys.executable, "-c"]}
    try:
        for sample in [sample for operation in operations(document) for sample in operation["x-codeSamples"]]:
            source = sample["source"].replace(HERE, here).replace(bare(HERE), bare(here))
            source = source.replace("curl -s", "curl -s --fail")
            command = [*run[sample["lang"]], source]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
            assert (done.returncode, done.stderr) == (0, b""), source
            assert done.stdout or " -o " in source, source
    finally:
        server.close()


def bare(address: str) -> str:
    return address.partition("://")[2]
