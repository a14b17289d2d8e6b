"""Who is told how a sweep goes."""

from __future__ import annotations

from collections.abc import Mapping

from autophagy.config.expand import PlannedLoop
from autophagy.runs.outcomes import Outcome


class SweepProgress:
    """Is told how a sweep goes, and shows nothing."""

    def begin(self, num_loops: int, num_left: int, num_generations: int) -> None:
        """So many loops there are, so many are left to run, and they have so many generations."""

    def shared(self, done: int, count: int) -> None:
        """How many of the generations 0 that loops share are there."""

    def generation(self, loop: PlannedLoop, generation: int, metrics: Mapping[str, float]) -> None:
        """A generation of a loop is finished."""

    def retried(self, loop: PlannedLoop, why: str) -> None:
        """A loop has failed and is tried again."""

    def ended(self, loop: PlannedLoop, outcome: Outcome) -> None:
        """A loop is at its end, or will not get there."""

    def end(self) -> None:
        """No more is to come."""
