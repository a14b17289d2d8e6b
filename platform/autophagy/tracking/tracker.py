"""What a loop tells a tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autophagy.common.records import GenerationRecord


@dataclass(frozen=True)
class RunInfo:
    """What a tracker is told once, when a loop starts or goes on."""

    name: str  # name of the run: a folder below <root>/runs
    digest: str  # digest of the experiment: the same loop has the same digest in every process
    params: Mapping[str, str | int | float | bool | None]  # flattened configuration, e.g. "training.epochs": 3
    tags: Mapping[str, str]  # seed, git commit, package versions, dataset digest ...
    dataset: Mapping[str, str | int]  # source, digest, num_real, num_held_out: the lineage of the real data


class Tracker(Protocol):
    """Where a loop's numbers go besides its run folder. No method may raise because a server is away."""

    def start(self, run: RunInfo) -> None:
        """Open or find again the run of this loop."""

    def log(self, records: Sequence[GenerationRecord]) -> None:
        """All records so far, oldest first. Log those not yet logged; what fails is tried again at the next call."""

    def finish(self, records: Sequence[GenerationRecord], pictures: Sequence[Path], complete: bool) -> None:
        """Log what is still missing, attach the pictures, and close the run (`complete`: not interrupted)."""


class NullTracker:
    """Tracks nothing: the run folder has it all."""

    def start(self, run: RunInfo) -> None:
        """Do nothing."""

    def log(self, records: Sequence[GenerationRecord]) -> None:
        """Do nothing."""

    def finish(self, records: Sequence[GenerationRecord], pictures: Sequence[Path], complete: bool) -> None:
        """Do nothing."""
