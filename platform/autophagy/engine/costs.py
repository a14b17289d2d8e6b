"""What finished stages have cost, and what the next one is therefore expected to cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
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


def scaled(history: Iterable[Mapping[str, Any]], work: float | None, cost: Cost) -> float | None:
    """What building will cost, scaled from those of the finished stages that are most alike; None: unknown.

    Args:
        history: manifests of finished stages of this kind, as `StageStore.history` gives them.
        work: what there is to do; None: not known beforehand.
        cost: reads it from a manifest.
    """
    past = [(cost(m), m["info"].get("work")) for m in history]
    if work is None:
        alike = [spent for spent, done in past if done is None]
    else:
        rates = [(abs(math.log(done / work)), spent * work / done) for spent, done in past if done]
        alike = [spent for distance, spent in rates if distance == min(rates)[0]]
    return statistics.median(alike) if alike else None
