"""Pictures that are small and would take Pillow minutes to take apart."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fmnist.errors import UserError
from fmnist.serve.parts import LONGEST_HEAD, MOST, MOST_EXIF, MOST_PROFILES, MOST_SCANS, MOST_SEGMENTS, check_parts
from fmnist.serve.pictures import SMALL


def encoded(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + bytes(4)


def segment(mark: int, content: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, mark, len(content) + 2) + content


PNG, JPEG = encoded("PNG"), encoded("JPEG")
EXCESSIVE = {
    "chunks before the pixels": PNG[:33] + chunk(b"xxXx") * MOST + PNG[33:],
    "chunks after the pixels": PNG[:-12] + chunk(b"xxXx") * MOST + PNG[-12:],
    "profiles": PNG[:33] + chunk(b"iCCP", b"x") * (MOST_PROFILES + 1) + PNG[33:],
    "segments": JPEG[:2] + segment(0xFE) * MOST_SEGMENTS + JPEG[2:],
    "fillings": JPEG[:2] + b"\xff" * MOST_SEGMENTS + JPEG[2:],
    "what is no segment": JPEG[:2] + b"\xff\xfe\0\2" + b"x" * MOST_SEGMENTS + JPEG[2:],
    "marks without a length": JPEG[:2] + b"\xff\xd9\xff\xd8" * MOST_SEGMENTS + JPEG[2:],
    "a length that a mark does not have": JPEG[:2] + b"\xff\xd9\xff\xff" + segment(0xFE) * MOST_SEGMENTS + JPEG[2:],
    "exif": JPEG[:2] + segment(0xE1, b"Exif\0\0") * (MOST_EXIF + 1) + JPEG[2:],
    "scans": JPEG[:-2] + segment(0xDA) * MOST_SCANS + JPEG[-2:],
    "segments among the pixels": JPEG[:-2] + segment(0xC4) * MOST_SEGMENTS + JPEG[-2:],
    "a long head": JPEG[:2] + segment(0xDB, bytes(65000)) * (LONGEST_HEAD // 65000 + 1) + JPEG[2:],
}


def test_the_service_refuses_it(call: Any) -> None:
    reply = call("POST", "/predict", EXCESSIVE["segments"], {"Content-Type": "image/jpeg"})
    assert reply.status == 400
    assert reply.json["detail"] == "the picture: consists of more parts than pictures do; save it anew"
    assert len(JPEG) > SMALL  # it is decoded apart
    assert call("POST", "/predict", JPEG, {"Content-Type": "image/jpeg"}).status == 200


@pytest.mark.parametrize("what", EXCESSIVE)
def test_a_picture_of_too_many_parts_is_refused(what: str) -> None:
    with pytest.raises(UserError, match=r"^x: consists of more parts than pictures do; save it anew$"):
        check_parts(EXCESSIVE[what], "x")


def test_pictures_as_programs_write_them_pass() -> None:
    exif, profile = Image.Exif(), bytes(300_000)
    exif[0x010E] = "a shoe" * 1000
    for content in (
        PNG,
        encoded("PNG", icc_profile=profile, exif=exif),
        JPEG,
        JPEG + np.random.default_rng(0).bytes(8 << 20),  # with a film
        encoded("JPEG", icc_profile=profile, exif=exif, progressive=True, comment="a shoe"),
        encoded("WEBP", exif=exif),
        b"\x89PNG",
        b"\xff\xd8\xff",
        b"",
    ):
        check_parts(content, "x")
