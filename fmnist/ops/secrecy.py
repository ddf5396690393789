"""Files that hold secrets: whether others can read them."""

from pathlib import Path
from typing import NamedTuple

from fmnist.ops.finding import Finding
from fmnist.ops.holdings import FIX

GROUP_AND_OTHERS, OTHERS = 0o077, 0o007


class Secret(NamedTuple):
    path: Path
    closed_to: int
    """Bits of the mode that must not be set."""
    is_renewed: bool = False
    """Whether it is made anew where it is gone."""

    @property
    def is_open(self) -> bool:
        return bool(self.path.stat().st_mode & self.closed_to)

    def close(self) -> str:
        """Keep others out of it; says how. One that they may have read is better made anew. Raises OSError."""
        if self.is_renewed:
            self.path.unlink()
            return "removed; the next fmnist up makes another"
        mode = self.path.stat().st_mode & 0o7777
        self.path.chmod(mode & ~self.closed_to)
        return f"mode {mode:o} is now {mode & ~self.closed_to:o}"


def known_secrets(home: Path, checkout: Path | None, key_file: Path | None) -> list[Secret]:
    """Those that are there: the platform's (containers read them as other users: their folder keeps people out),
    JupyterLab's token, the service's key."""
    known = [Secret(home / "jupyter" / "token", GROUP_AND_OTHERS, is_renewed=True)]
    if checkout:
        known.append(Secret(checkout / "secrets", GROUP_AND_OTHERS))
    if key_file:
        known.append(Secret(key_file, OTHERS))
    return [secret for secret in known if secret.path.exists()]


def secrets(home: Path, checkout: Path | None, key_file: Path | None) -> Finding:
    if key_file and not key_file.is_file():
        return Finding(
            "secrets", "bad", f"FMNIST_API_KEY_FILE {key_file} is not there", "write the service's key to it"
        )
    known = known_secrets(home, checkout, key_file)
    if not known:
        return Finding("secrets", "off", "none yet")
    if opened := [f"{secret.path} (mode {secret.path.stat().st_mode & 0o777:o})" for secret in known if secret.is_open]:
        return Finding("secrets", "bad", f"others can read {', '.join(opened)}", FIX)
    return Finding("secrets", "ok", f"closed to others: {', '.join(str(secret.path) for secret in known)}")
