"""What a client may ask of the service."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    body: int = 16 << 20
    """Bytes, unpacked ones too."""
    pixels: int = 20_000_000
    """Of one picture."""
    images: int = 4096
    """In one request."""
    queue: int = 8192
    """Images that wait for the model, of requests for many."""
    requests: int = 384
    """That are being answered at the same time."""
    hold: float = 0.25
    """Seconds for which one more than these waits for its refusal."""
    shown: int = 64
    """Images that an answer gives back, as the model saw them."""
    seconds: float = 10
    """For a request to arrive, and again for its answer."""
    drain: float = 10
    """Seconds that a service told to stop gives those who wait."""
