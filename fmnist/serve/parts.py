"""Of how many parts a picture consists: Pillow reads them in Python, and what has millions would hold up everybody."""

from PIL.JpegImagePlugin import MARKER

from fmnist.errors import UserError

PNG, JPEG = b"\x89PNG", b"\xff\xd8\xff"
MOST = 4096
"""Parts of a PNG: 16 MiB in the pieces of 8 kB that its library writes are half as many."""
MOST_SEGMENTS, MOST_EXIF, MOST_SCANS = 1024, 16, 32
"""Of a JPEG: before its pixels; those that Pillow puts together anew each time; passes over all of its pixels."""
MOST_PROFILES = 4
"""Colour profiles of a PNG: each may unpack to a megabyte."""
LONGEST_HEAD = 4 << 20
"""Bytes before a JPEG's pixels."""
_START_OF_SCAN = 0xFFDA


def check_parts(content: bytes, name: str) -> None:
    """Raise UserError for a picture that takes longer to take apart than it may."""
    if content.startswith(PNG):
        excessive = content.count(b"iCCP") > MOST_PROFILES or _has_more_chunks(content)
    elif content.startswith(JPEG):
        excessive = content.count(b"Exif\0\0") > MOST_EXIF or content.count(b"\xff\xda") > MOST_SCANS
        excessive = excessive or _has_more_segments(content)
    else:
        excessive = False
    if excessive:
        raise UserError(name, "consists of more parts than pictures do; save it anew")


def _has_more_chunks(content: bytes) -> bool:
    at = 8
    for _ in range(MOST):
        at += 12 + int.from_bytes(content[at : at + 4])
        if at >= len(content):
            return False
    return True


def _has_more_segments(content: bytes) -> bool:
    """As Pillow goes through them: what is none, or has no length, it passes over byte by byte."""
    at = 2
    for _ in range(MOST_SEGMENTS):
        mark = int.from_bytes(content[at : at + 2])
        if mark == _START_OF_SCAN or at >= len(content):
            return at > LONGEST_HEAD
        has_length = mark in MARKER and MARKER[mark][2] is not None
        at += 2 + int.from_bytes(content[at + 2 : at + 4]) if has_length else 1
    return True
