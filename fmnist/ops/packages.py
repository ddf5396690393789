"""The installed packages, against the versions that fmnist is tested with."""

from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from fmnist.ops.finding import Finding

MOST = 4
"""Packages that are named."""


def packages(checkout: Path | None) -> Finding:
    """By the checkout's constraints.txt; without it, as from a wheel, by what fmnist's metadata require.

    What is not installed is not missed: it may belong to an extra that nobody asked for.
    """
    constraints = checkout / "constraints.txt" if checkout else None
    if constraints and constraints.is_file():
        wanted, place = _constrained(constraints), f"{constraints.name} has them"
    else:
        wanted, place = _required(), "fmnist requires them"
    installed = [(one, found) for one in wanted if (found := _installed(one.name))]
    wrong = [
        f"{one.name} {found} (not {one.specifier})"
        for one, found in installed
        if not one.specifier.contains(found, prereleases=True)
    ]
    if not wrong:
        return Finding("packages", "ok", f"{len(installed)} installed, all as {place}")
    more = f" and {len(wrong) - MOST} more" if len(wrong) > MOST else ""
    told = f"{', '.join(wrong[:MOST])}{more}: not as {place}"
    remedy = "make -B setup installs them anew" if checkout else "in a checkout: pip install '.[up]'"
    return Finding("packages", "warning", told, remedy)


def _constrained(path: Path) -> list[Requirement]:
    lines = (line.partition(" #")[0].strip() for line in path.read_text().splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return [one for one in found if one.marker is None or one.marker.evaluate()]


def _required() -> list[Requirement]:
    """Of fmnist itself and of all its extras."""
    extras = ["", *(metadata("fmnist").get_all("Provides-Extra") or [])]
    found = [Requirement(line) for line in requires("fmnist") or []]
    asked = [
        one for one in found if one.marker is None or any(one.marker.evaluate({"extra": one_of}) for one_of in extras)
    ]
    return list({(one.name, str(one.specifier)): one for one in asked}.values())  # extras have many in common


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
