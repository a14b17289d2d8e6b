"""Quality and diversity apart: precision, recall, density and coverage from nearest-neighbour balls."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autophagy.metrics.neighbours import ball_blocks, nearest_squared
from autophagy.metrics.rows import two_sets


class Manifold(NamedTuple):
    """The four numbers that one pass over all pairs gives."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(real: np.ndarray, synthetic: np.ndarray, k: int = 5) -> Manifold:
    """`precision_recall` and `density_coverage` together, at the price of one.

    Args:
        real: [n, D].
        synthetic: [m, D].
        k: The ball around a row reaches its k-th nearest other row of the same set. Balls are closed: a set
            of copies, whose balls have radius 0, still covers itself.

    Raises:
        TooFewRows: if a set has fewer than `k + 1` rows.
    """
    real, synthetic = two_sets(real, synthetic)
    radius_real = nearest_squared(real, k=k)[:, -1]
    radius_synthetic = nearest_squared(synthetic, k=k)[:, -1]
    num_balls = np.zeros(len(synthetic), dtype=np.int64)  # real balls that contain each synthetic row
    recalled = covered = 0
    for _, in_real_ball, in_synthetic_ball in ball_blocks(real, synthetic, radius_real, radius_synthetic):
        num_balls += in_real_ball.sum(axis=0)
        covered += int(in_real_ball.any(axis=1).sum())
        recalled += int(in_synthetic_ball.any(axis=1).sum())
    return Manifold(
        precision=float((num_balls > 0).mean()),
        recall=recalled / len(real),
        density=float(num_balls.mean()) / k,
        coverage=covered / len(real),
    )


def precision_recall(real: np.ndarray, synthetic: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, section 2).

    Precision is the share of synthetic rows inside a ball around a real row (quality), recall the share of
    real rows inside a ball around a synthetic row (diversity). Arguments, errors: see `manifold_scores`.
    """
    scores = manifold_scores(real, synthetic, k)
    return scores.precision, scores.recall


def density_coverage(real: np.ndarray, synthetic: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, section 3), with closed balls.

    Density is the mean number of real balls around a synthetic row, over `k` (it may exceed 1); coverage the
    share of real rows whose ball holds a synthetic row. Arguments, errors: see `manifold_scores`.
    """
    scores = manifold_scores(real, synthetic, k)
    return scores.density, scores.coverage
