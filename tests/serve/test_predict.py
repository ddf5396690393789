import asyncio
import io
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fmnist.predictor import Predictor
from fmnist.serve.limits import Limits
from fmnist.serve.pictures import from_numbers, from_pictures
from fmnist.serve.predict import parse_multipart
from fmnist.serve.service import Service
from fmnist.serve.web import Refused

JSON = {"Content-Type": "application/json"}


def png(pixels: Any, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def form(*parts: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    body = b""
    for head, content in parts:
        body += b"--xx\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + b"--xx--\r\n", {"Content-Type": "multipart/form-data; boundary=xx"}


def test_every_form_of_the_same_picture_gets_the_same_answer(call: Any, service: Service, picture: Any) -> None:
    model = service.keeper.model
    assert model is not None
    expected = Predictor(model.predictor.path).probabilities(picture[None])[0]
    asked = {
        "flat": (json.dumps({"inputs": picture.ravel().tolist()}).encode(), JSON),
        "nested": (json.dumps({"inputs": picture.tolist()}).encode(), JSON),
        "batch": (json.dumps({"inputs": [picture.tolist()]}).encode(), JSON),
        "floats": (json.dumps({"inputs": picture.astype(float).tolist()}).encode(), JSON),
        "raw": (picture.tobytes(), {"Content-Type": "application/octet-stream"}),
        "no type": (picture.tobytes(), {}),
        "curl": (picture.tobytes(), {"Content-Type": "application/x-www-form-urlencoded"}),
        "png": (png(picture), {"Content-Type": "image/png"}),
        "webp": (png(picture, "WEBP"), {"Content-Type": "image/webp"}),
        "png, no type": (png(picture), {}),
        "form": form(('name="file"; filename="a.png"', png(picture))),
    }
    for name, (body, headers) in asked.items():
        reply = call("POST", "/predict", body, headers)
        assert reply.status == 200, (name, reply.body)
        (answer,) = reply.json["predictions"]
        np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=1e-5, err_msg=name)
        assert answer["label"] == "0" == answer["top"][0]["label"]
        assert reply.json["model"] == {"name": "fashion-mnist", "version": "1"}
        assert reply.json["id"] == reply.headers["x-request-id"]


def test_several_at_once_are_answered_in_their_order(call: Any, service: Service, dataset: Any) -> None:
    images = dataset.test.images[:5]
    model = service.keeper.model
    assert model is not None
    expected = [answer.probability for answer in model.predictor.predict(images)]
    body, headers = form(*((f'name="f"; filename="{n}.png"', png(image)) for n, image in enumerate(images)))
    bodies = {
        "raw": (images.tobytes(), {}),
        "json": (json.dumps({"inputs": images.reshape(5, 784).tolist()}).encode(), JSON),
        "form": (body, headers),
    }
    for name, (content, given) in bodies.items():
        answers = call("POST", "/predict", content, given).json["predictions"]
        np.testing.assert_allclose([a["probability"] for a in answers], expected, atol=1e-5, err_msg=name)


def test_top_and_image_are_given_as_asked(call: Any, picture: Any) -> None:
    (answer,) = call("POST", "/predict?top=10&image=1", png(picture)).json["predictions"]
    assert answer["image"] == picture.tolist()
    assert [entry["probability"] for entry in answer["top"]] == sorted(answer["probabilities"].values(), reverse=True)
    (answer,) = call("POST", "/predict?top=1&image=0", png(picture)).json["predictions"]
    assert "image" not in answer
    assert len(answer["top"]) == 1


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("top=0", "top=0: is no number of classes; give one from 1 to 1000"),
        ("top=1001", "top=1001: is no number"),
        pytest.param(f"top={'0' * 5000}1", "top=00000000000000000000: is no number", id="5001 digits"),
        ("top=x", "top=x: is no number"),
        ("image=maybe", "image=maybe: is neither true nor false"),
        ("topp=1", "topp: is no parameter; there are top and image"),
        ("&".join("abcdefghijklmnopqrstuvwxyz"), "the query: can't be read"),
    ],
)
def test_a_query_that_is_wrong(call: Any, picture: Any, query: str, said: str) -> None:
    reply = call("POST", f"/predict?{query}", picture.tobytes())
    assert reply.status == 400
    assert reply.json["detail"].startswith(said)


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"", {}, 400, "the body: is empty"),
        (b"x" * 783, {}, 400, "the body: has 783 bytes; give a PNG, JPEG or WebP, or 784 bytes an image"),
        (b"GIF89a" + b"x" * 100, {"Content-Type": "image/gif"}, 400, "the picture: is no PNG, JPEG, WebP"),
        (b"\x89PNG\r\n\x1a\nx", {"Content-Type": "image/png"}, 400, "the picture: is no PNG"),
        (b"x", {"Content-Type": "text/plain"}, 415, "Content-Type 'text/plain': is not known"),
        (b"{", JSON, 400, "the body: is no JSON"),
        (b"[]", JSON, 400, "the body: has no inputs"),
        (b'{"inputs": [], "other": 1}', JSON, 400, "other: is not known here"),
        (b'{"inputs": []}', JSON, 400, "inputs: holds something other than numbers"),
        (b'{"inputs": null}', JSON, 400, "inputs: holds something other than numbers"),
        (b'{"inputs": {"a": 1}}', JSON, 400, "inputs: holds something other than numbers"),
        (b'{"inputs": "aaaa"}', JSON, 400, "inputs: holds something other than numbers"),
        (b'{"inputs": [[1, 2], [3]]}', JSON, 400, "inputs: its lists are of different lengths"),
        (b'{"inputs": [1, 2, 3]}', JSON, 400, "inputs: has the shape [3]"),
        (json.dumps({"inputs": [True] * 784}).encode(), JSON, 400, "inputs: holds something other than numbers"),
        (json.dumps({"inputs": ["1"] * 784}).encode(), JSON, 400, "inputs: holds something other than numbers"),
        (json.dumps({"inputs": [0.5] * 784}).encode(), JSON, 400, "inputs: holds 0.5; give whole numbers"),
        (json.dumps({"inputs": [-1] * 784}).encode(), JSON, 400, "inputs: holds -1; give whole numbers"),
        (json.dumps({"inputs": [300] * 784}).encode(), JSON, 400, "inputs: holds 300; give whole numbers"),
        (json.dumps({"inputs": [1 << 62] * 784}).encode(), JSON, 400, "inputs: holds 4611686018427387904"),
        (json.dumps({"inputs": [0] * 783 + [256]}).encode(), JSON, 400, "inputs: holds 256"),
        (json.dumps({"inputs": [float("nan")] * 784}).encode(), JSON, 400, "the body: is no JSON"),
        (b'{"inputs": [' + b"1e999," * 783 + b"1]}", JSON, 400, "the body: is no JSON"),
        (b"[" * 5000, JSON, 400, "the body: is no JSON"),
        (b"x", {"Content-Type": "multipart/form-data"}, 400, "Content-Type multipart/form-data: has no boundary"),
        (b"x", {"Content-Type": "multipart/form-data; boundary=xx"}, 400, "the form: is damaged"),
        (*form(('name="a"', b"text")), 400, "the form: holds no file"),
        (*form(('name="a"; filename="shoe.png"', b"text")), 400, "picture 1 ('shoe.png'): is no PNG"),
        (*form(('name="a"; filename="sh\x00\x1b[31moe"', b"text")), 400, "picture 1 ("),
    ],
)
def test_what_is_no_picture_is_told_in_one_line(
    call: Any, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    reply = call("POST", "/predict", body, headers)
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["detail"].startswith(said) or said in reply.json["detail"], reply.json["detail"]
    assert reply.json["detail"].isprintable()


def test_too_many_images_and_too_many_pixels(call: Any, service: Service) -> None:
    images = service.limits.images
    reply = call("POST", "/predict", bytes(784 * (images + 1)))
    assert (reply.status, reply.json["detail"]) == (
        413,
        f"{images + 1:,} images: {images:,} at most fit into a request; send several",
    )
    huge = io.BytesIO()
    Image.new("1", (5000, 5000)).save(huge, "PNG")
    reply = call("POST", "/predict", huge.getvalue(), {"Content-Type": "image/png"})
    assert (reply.status, reply.json["detail"]) == (
        413,
        "the picture: has 25,000,000 pixels; give 20,000,000 at most",
    )
    bomb = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(bomb, "PNG")  # more than Pillow itself opens
    reply = call("POST", "/predict", bomb.getvalue(), {"Content-Type": "image/png"})
    assert (reply.status, reply.json["detail"]) == (413, "the picture: has too many pixels; give 20,000,000 at most")


def test_a_form_with_more_files_than_fit() -> None:
    body, headers = form(*(('name="a"; filename="a"', b"x") for _ in range(3)))
    with pytest.raises(Refused, match="more than 2 parts"):
        parse_multipart(headers["Content-Type"].encode(), body, Limits(images=2))


def test_fields_that_are_no_files_count_too() -> None:
    body, headers = form(*(('name="a"', b"") for _ in range(3)), ('name="a"; filename="a"', b"x"))
    with pytest.raises(Refused, match="more than 2 parts"):
        parse_multipart(headers["Content-Type"].encode(), body, Limits(images=2))


def test_others_are_answered_between_the_pictures_of_a_form(picture: Any) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both() -> None:
        beside = asyncio.create_task(others())
        await from_pictures([("a", png(picture))] * 5, Limits())
        beside.cancel()

    asyncio.run(both())
    assert turns >= 4


def test_a_long_text_among_numbers_takes_no_memory_for_each_of_them(call: Any) -> None:
    body = json.dumps({"inputs": ["x" * 4000, *([0] * 200_000)]}).encode()
    tracemalloc.start()
    try:
        assert call("POST", "/predict", body, JSON).status == 400
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_whole_numbers_of_every_size_are_told_apart() -> None:
    for wrong in (2**63, 2**64 - 1, -(2**63), 1e300, 10**30):
        with pytest.raises(Refused, match="inputs: holds "):
            from_numbers([wrong, *([0] * 782), -1], Limits())


def test_what_the_model_saw_is_given_of_a_few(call: Any, service: Service) -> None:
    shown = service.limits.shown
    assert len(call("POST", "/predict?image=1", bytes(784 * shown)).json["predictions"]) == shown
    reply = call("POST", "/predict?image=1", bytes(784 * (shown + 1)))
    assert (reply.status, reply.json["detail"]) == (
        400,
        f"image=1: is for {shown} images at most, here are {shown + 1}",
    )
