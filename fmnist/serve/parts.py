"""Of how many parts a picture consists: Pillow reads them in Python, and what has millions would hold up everybody."""

import re

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
_MARK = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
"""In what is compressed, where no length tells how far it goes."""


def check_parts(content: bytes, name: str) -> None:
    """Raise UserError for a picture that takes longer to take apart than it may."""
    if content.startswith(PNG):
        excessive = content.count(b"iCCP") > MOST_PROFILES or _has_more_chunks(content)
    elif content.startswith(JPEG):
        excessive = content.count(b"Exif\0\0") > MOST_EXIF or _has_more_segments(content)
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
        if at >= len(content):
            return False
        if mark == _START_OF_SCAN:
            return at > LONGEST_HEAD or _has_more_scans(content, at)
        has_length = mark in MARKER and MARKER[mark][2] is not None
        at += 2 + int.from_bytes(content[at + 2 : at + 4]) if has_length else 1
    return True


def _has_more_scans(content: bytes, at: int) -> bool:
    """To where the picture ends: phones put films after it."""
    scans = 0
    for _ in range(MOST_SEGMENTS):
        found = _MARK.search(content, at)
        if found is None or found[1] == b"\xd9":
            return False
        scans += found[1] == b"\xda"
        if scans > MOST_SCANS:
            return True
        at = found.end() + int.from_bytes(content[found.end() : found.end() + 2])
    return True
