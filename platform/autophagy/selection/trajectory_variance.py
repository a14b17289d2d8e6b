"""Selection by the variance of a trajectory (arXiv 2406.09358): images a sampler was undecided about go first."""

from typing import Literal

import numpy as np

from autophagy.common.samples import TRAJECTORY_VARIANCE
from autophagy.selection.base import Candidates, ScoredSelector


class TrajectoryVariance(ScoredSelector):
    """Keeps the synthetic images whose last predictions of x_0 varied least while they were sampled.

    Real images were not sampled, which is no reason to prefer or to drop them: places in the ranking are dealt to
    real and synthetic images at random, so that the expected share of real ones is that of random selection.
    Synthetic images without a variance come after all others of theirs.
    """

    strategy: Literal["trajectory_variance"] = "trajectory_variance"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({TRAJECTORY_VARIANCE})

    def scores(self, candidates: Candidates) -> np.ndarray:
        return -candidates.column(TRAJECTORY_VARIANCE)

    def _rank(self, candidates: Candidates, num_keep: int, rng: np.random.Generator) -> np.ndarray:
        order = rng.permutation(len(candidates))
        best = super()._rank(candidates, num_keep, rng)
        is_synthetic = ~candidates.is_real
        order[is_synthetic[order]] = best[is_synthetic[best]]
        return order
