"""Quality and diversity apart: precision, recall, density and coverage from nearest-neighbour balls."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from autophagy.metrics.neighbours import ball_blocks, nearest
from autophagy.metrics.rows import Rows, two_sets


class Manifold(NamedTuple):
    """The four numbers that one pass over all pairs gives."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(real: Rows, synthetic: Rows, k: int = 5, near: Tensor | None = None) -> Manifold:
    """`precision_recall` and `density_coverage` together, at the price of one.

    Args:
        real: [n, D].
        synthetic: [m, D].
        k: The ball around a row reaches its k-th nearest other row of the same set. Balls are closed: a set
            of copies, whose balls have radius 0, still covers itself.
        near: Distances from synthetic rows to their k or more nearest others, where they are known.

    Raises:
        TooFewRows: if a set has fewer than `k + 1` rows.
    """
    real, synthetic = two_sets(real, synthetic)
    radius_real = nearest(real, k=k)[:, -1]
    radius_synthetic = (nearest(synthetic, k=k) if near is None else near)[:, k - 1]
    # Real balls that contain each synthetic row.
    num_balls = torch.zeros(len(synthetic), dtype=torch.int64, device=synthetic.device)
    recalled = covered = 0
    for in_real_ball, in_synthetic_ball in ball_blocks(real, synthetic, radius_real, radius_synthetic):
        num_balls += in_real_ball.sum(dim=0)
        covered += int(in_real_ball.any(dim=1).sum())
        recalled += int(in_synthetic_ball.any(dim=1).sum())
    return Manifold(
        precision=int((num_balls > 0).sum()) / len(synthetic),
        recall=recalled / len(real),
        density=int(num_balls.sum()) / (k * len(synthetic)),
        coverage=covered / len(real),
    )


def precision_recall(real: Rows, synthetic: Rows, k: int = 5) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, section 2).

    Precision is the share of synthetic rows inside a ball around a real row (quality), recall the share of
    real rows inside a ball around a synthetic row (diversity). Arguments, errors: see `manifold_scores`.
    """
    scores = manifold_scores(real, synthetic, k)
    return scores.precision, scores.recall


def density_coverage(real: Rows, synthetic: Rows, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, section 3), with closed balls.

    Density is the mean number of real balls around a synthetic row, over `k` (it may exceed 1); coverage the
    share of real rows whose ball holds a synthetic row. Arguments, errors: see `manifold_scores`.
    """
    scores = manifold_scores(real, synthetic, k)
    return scores.density, scores.coverage
