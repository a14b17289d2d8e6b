"""Compare the versions in constraints.txt with the advisories that PyPI keeps: exit 1 if one is known to be vulnerable.

Where PyPI's advisories cannot be read, say so in one line and exit 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
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
    """Audit; pip-audit names what is found and what to take instead."""
    if reason := advisories():
        print(f"audit skipped: no advisories from {KNOWN.partition('/pypi/')[0]} ({reason})")
        return 0
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", TOOL], check=True)
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--requirement", str(CONSTRAINTS)]
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
