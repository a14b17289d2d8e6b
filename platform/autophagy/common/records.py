"""What a generation leaves behind: one line of `records.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class GenerationRecord:
    """What one generation leaves behind: one line of `records.jsonl`."""

    generation: int
    metrics: Mapping[str, float]  # keys of METRICS in autophagy.metrics; a value that is undefined is NaN
    stages: Mapping[str, str]  # stage name -> key in the store
    seconds: Mapping[str, float]  # stage name -> wall seconds when it was built

    def to_json(self) -> dict[str, Any]:
        """A JSON object; NaN becomes null, so that every reader can parse the line."""
        metrics = {k: (None if np.isnan(v) else float(v)) for k, v in self.metrics.items()}
        return {
            "generation": self.generation,
            "metrics": metrics,
            "stages": dict(self.stages),
            "seconds": {k: round(float(v), 3) for k, v in self.seconds.items()},
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> GenerationRecord:
        """The inverse of `to_json`."""
        metrics = {k: float("nan") if v is None else float(v) for k, v in row["metrics"].items()}
        return cls(row["generation"], metrics, row["stages"], row["seconds"])
