"""Which code computed a run, and as which job: commit, uncommitted changes, package versions, metadata."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from autophagy.common.versions import installed
from autophagy.tracking.tags import COMMIT, DIRTY

PACKAGES = ("autophagy", "torch", "diffusers", "ray", "numpy", "scikit-learn")


def code_tags() -> dict[str, str]:
    """Tags git.commit, git.dirty (of a checkout, or as the job was told), ray.submission_id, version.<package>."""
    tags = {"version.python": sys.version.split()[0]}
    tags |= {f"version.{package}": version for package, version in installed(PACKAGES).items()}
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    if commit is not None and status is not None:
        tags |= {COMMIT: commit, DIRTY: str(bool(status)).lower()}
    return tags | job_tags()


def job_tags() -> dict[str, str]:
    """The id and the metadata of the submitted job whose driver this is."""
    metadata = dict(json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("metadata", {}))
    metadata.pop("job_name", None)  # the id again
    submission = metadata.pop("job_submission_id", None)
    return metadata if submission is None else {"ray.submission_id": submission, **metadata}


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
