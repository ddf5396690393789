"""What the pages are made of. How they behave in a browser: tests/platform/test_page.py."""

import asyncio
import gzip
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fmnist.data.dataset import FASHION_MNIST_CLASSES
from fmnist.serve.pages import FOLDER, TYPES

from .conftest import ListSource, ask, make_service

CODE = sorted(path for path in FOLDER.iterdir() if path.suffix in TYPES)
PAGES = {"index.html": "/", "docs.html": "/docs"}


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_every_file_is_served_whole_or_gzipped_or_not_again(call: Any, path: Path) -> None:
    address = PAGES.get(path.name, f"/page/{path.name}")
    whole = call("GET", address)
    assert (whole.status, whole.body) == (200, path.read_bytes())
    assert whole.headers["content-type"] == TYPES[path.suffix].decode()
    packed = call("GET", address, headers={"Accept-Encoding": "gzip, br"})
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == whole.body
    same = call("GET", address, headers={"If-None-Match": f'W/"other", {whole.headers["etag"]}'})
    assert (same.status, same.body) == (304, b"")
    assert "content-length" not in same.headers
    assert whole.headers["cache-control"] == same.headers["cache-control"] == "no-cache"
    assert call("HEAD", address).body == b""


def parts(name: str) -> set[Path]:
    """A page and all that it loads, but for the test images."""
    found, new = set(), {FOLDER / name}
    while new:
        found |= new
        texts = [path.read_text() for path in new]
        new = {FOLDER / other for text in texts for other in re.findall(r'(?:"page/|from "\./)([^"]+)"', text)} - found
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_page_weighs_less_than_60_kb_and_loads_nothing_from_elsewhere(name: str) -> None:
    assert sum(path.stat().st_size for path in parts(name)) < 60_000
    for path in parts(name):
        addresses = set(re.findall(r"https?://[^\s\"'`<>)]*", path.read_text()))
        assert addresses <= {"http://localhost:8000", "http://www.w3.org/2000/svg"}, path


@pytest.mark.parametrize("name", PAGES)
def test_the_policy_allows_all_that_a_page_does(name: str, call: Any) -> None:
    content = (FOLDER / name).read_text()
    assert "<style" not in content
    assert not re.search(r"\s(style|on\w+)=", content)
    assert all(re.search(r'\ssrc="page/', tag) for tag in re.findall(r"<script[^>]*>", content))
    policy = call("GET", PAGES[name]).headers["content-security-policy"]
    assert "script-src 'self'; style-src 'self';" in policy


def test_every_file_belongs_to_a_page() -> None:
    assert set(CODE) == parts("index.html") | parts("docs.html")


def test_a_file_that_is_no_part_of_a_page_is_not_served(call: Any) -> None:
    for path in ("/page/samples.png", "/page/index.html", "/page/../pages.py", "/page/..%2Fpages.py", "/page/"):
        assert call("GET", path).status == 404, path


def test_the_test_images_are_six_of_each_class_as_bytes_and_as_pictures(call: Any) -> None:
    content = call("GET", "/samples").body
    images = np.frombuffer(content, np.uint8).reshape(60, 28, 28)
    assert len(np.unique(images.reshape(60, -1), axis=0)) == 60
    for number in (0, 59):
        reply = call("GET", f"/samples/{number}")
        assert reply.headers["content-type"] == "image/png"
        assert (np.asarray(Image.open(io.BytesIO(reply.body))) == images[number]).all()
    names = re.findall(r'"([A-Z][^"]+)"', (FOLDER / "samples.js").read_text().partition("];")[0])
    assert tuple(names) == FASHION_MNIST_CLASSES


@pytest.mark.parametrize("number", ["60", "-1", "1.0", "٣", "x", "0" * 99])
def test_a_test_image_that_is_not_there(call: Any, number: str) -> None:
    reply = call("GET", f"/samples/{number}")
    assert reply.status == 404
    assert reply.json["detail"].endswith("there is no such; give a number from 0 to 59")


def test_a_page_can_be_opened_without_the_key_that_the_service_asks_for(source: ListSource) -> None:
    service = make_service(source, key="0123456789abcdef")
    for path, status in {"/": 200, "/docs": 200, "/openapi.json": 200, "/page/page.js": 200, "/status": 401}.items():
        assert asyncio.run(ask(service, "GET", path)).status == status
    service.close()
