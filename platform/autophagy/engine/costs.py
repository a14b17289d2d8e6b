"""What finished stages have cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Cost = Callable[[Mapping[str, Any]], float]


def seconds(manifest: Mapping[str, Any]) -> float:
    """Wall seconds that a finished stage took."""
    return float(manifest["seconds"])


def device_seconds(manifest: Mapping[str, Any]) -> float:
    """Seconds of one CPU or GPU that a finished stage took, waiting left out."""
    return float(manifest["info"].get("device_seconds", manifest["seconds"]))


def num_bytes(manifest: Mapping[str, Any]) -> float:
    """Size of a finished stage's payload."""
    return float(sum(file["size"] for file in manifest["files"].values()))
