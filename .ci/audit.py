"""Compare the versions in constraints.txt with the advisories that PyPI keeps: exit 1 if one is known to be vulnerable.

Where PyPI's advisories cannot be read, say so in one line and exit 0; with AUDIT_REQUIRED=1, exit 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
ENVIRONMENT = ROOT / ".venv-audit"  # its own: what audits is not among what is audited
KNOWN = "https://pypi.org/pypi/setuptools/65.5.0/json"  # has an advisory: a mirror without any would find nothing
TOOL = "pip-audit==2.10.1"


def advisories() -> str:
    """Why no advisories can be had; empty if they can."""
    try:
        with urllib.request.urlopen(KNOWN, timeout=20) as answer:
            found = json.load(answer).get("vulnerabilities")
    except (OSError, ValueError) as error:
        return str(error)
    return "" if found else "it has no advisories"


def main() -> int:
    """Audit; pip-audit names what is found and what to take instead. What it cannot look up fails too."""
    if reason := advisories():
        required = os.environ.get("AUDIT_REQUIRED") == "1"
        word = "failed" if required else "SKIPPED, nothing was looked at"
        print(f"audit {word}: no advisories from {KNOWN.partition('/pypi/')[0]} ({reason})", file=sys.stderr)
        return int(required)
    python = str(ENVIRONMENT / "bin" / "python")
    if not Path(python).exists():
        venv.create(ENVIRONMENT, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS), TOOL], check=True)
    command = [python, "-m", "pip_audit", "--strict", "--disable-pip", "--no-deps", "--requirement", str(CONSTRAINTS)]
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
