"""Which versions computed the numbers: keys of stages say what was computed, and not with which torch."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from packaging.version import InvalidVersion, Version

COMPARED = ("torch", "autophagy")  # packages whose major versions may change numbers

logger = logging.getLogger(__name__)


def series(version: str) -> str:
    """What a version has in common with those that promise the same: the major number, below 1 the minor one too."""
    try:
        release = Version(version).release
    except InvalidVersion:
        return version
    return str(release[0]) if release[0] else ".".join(map(str, (*release, 0)[:2]))


def installed(packages: Iterable[str] = COMPARED) -> dict[str, str]:
    """The versions of packages in this process; one that is on the path and not installed has none."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def differences(computed: Iterable[Mapping[str, str]], here: Mapping[str, str]) -> dict[str, set[str]]:
    """For each compared package the series that computed something and are not the one here.

    Args:
        computed: `versions` of manifests; a package that one does not name is not compared.
        here: Versions by package.
    """
    found: dict[str, set[str]] = {}
    for versions in computed:
        for package in COMPARED:
            if package in versions and package in here and series(versions[package]) != series(here[package]):
                found.setdefault(package, set()).add(series(versions[package]))
    return found


def warn_of_others(run: str, manifests: Iterable[Mapping[str, Any]]) -> bool:
    """Log one line if other versions than those here computed some stages of a run; whether it was logged."""
    here = installed()
    other = differences((manifest["versions"] for manifest in manifests), here)
    if not other:
        return False
    before = " and ".join(f"{package} {' and '.join(sorted(found))}" for package, found in other.items())
    now = " and ".join(f"{package} {here[package]}" for package in other)
    logger.warning(
        "stages of %s were computed by %s, here is %s: numbers may differ in the last digits; "
        "another --store keeps them apart",
        *(run, before, now),
    )
    return True
