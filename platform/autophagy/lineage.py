"""Which code computed a run: commit, uncommitted changes, package versions."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("autophagy", "torch", "diffusers", "ray", "numpy", "scikit-learn")


def code_tags() -> dict[str, str]:
    """Tags git.commit, git.dirty (where the package runs from a checkout) and version.<package>."""
    tags = {"version.python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            tags[f"version.{package}"] = version(package)
        except PackageNotFoundError:  # run from a source tree that is on the path, not installed
            continue
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    if commit is not None and status is not None:
        tags |= {"git.commit": commit, "git.dirty": str(bool(status)).lower()}
    return tags


def _git(*arguments: str) -> str | None:
    """Output of git in the folder of this package; None if there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
