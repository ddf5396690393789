"""Who may ask: names that a browser may be sent to, an API key, and what browsers are told to keep to."""

import hmac
import secrets
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from fmnist.errors import UserError
from fmnist.serve.web import Refused

SHORTEST_KEY = 16
_ID_CHARACTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
)


class Guard:
    """Turns away requests that were sent under another name (DNS rebinding), from foreign pages, or without the key."""

    def __init__(self, hosts: Iterable[str] | None, key: str | None = None) -> None:
        """`hosts`: as `Host` headers have them; None allows all. `key`: the API key, where one is asked for."""
        self._hosts = None if hosts is None else frozenset(host.lower().encode() for host in hosts)
        self._key = key.encode() if key else None

    def check(self, headers: dict[bytes, bytes], method: str, protected: bool) -> None:
        """Raises Refused."""
        host = headers.get(b"host", b"")
        if self._hosts is not None and host not in self._hosts and host.lower() not in self._hosts:
            raise Refused(
                403,
                f"Host {host[:60].decode('latin-1')!a}: is not known here; see FMNIST_ALLOWED_HOSTS, docs/settings.md",
            )
        origin = headers.get(b"origin")
        if origin and method != "GET" and origin.partition(b"://")[2] != host:  # CORS is closed: not even asked blindly
            raise Refused(
                403, f"Origin {origin[:60].decode('latin-1')!a}: other pages may not ask; ask from this service's own"
            )
        if self._key and protected and not hmac.compare_digest(_given_key(headers), self._key):
            challenge = ((b"www-authenticate", b"Bearer"),)
            raise Refused(401, "the API key: is missing or wrong; send Authorization: Bearer KEY", challenge)


def _given_key(headers: dict[bytes, bytes]) -> bytes:
    kind, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key.strip() if kind.lower() == b"bearer" else headers.get(b"x-api-key", b"")


def read_key(path: Path) -> str:
    """The API key in the file. Raises UserError for one that is missing, short, or readable by others."""
    try:
        key, mode = path.read_text().strip(), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"FMNIST_API_KEY_FILE {path}", f"cannot be read ({error}); write the key into it") from error
    if mode & 0o007:
        raise UserError(f"FMNIST_API_KEY_FILE {path}", "others can read it; chmod 600 it")
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable():
        raise UserError(f"FMNIST_API_KEY_FILE {path}", f"holds no key of {SHORTEST_KEY} letters or more; make one")
    return key


class Ids:
    """Names of requests: the client's own if it is a plain one, else the next of this process's."""

    def __init__(self) -> None:
        self._prefix, self._numbers = secrets.token_hex(4), count(1)

    def of(self, headers: dict[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id")
        if given and len(given) <= 64 and _ID_CHARACTERS.issuperset(given):
            return given.decode()
        return f"{self._prefix}-{next(self._numbers):x}"
