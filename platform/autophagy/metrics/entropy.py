"""Entropy from nearest-neighbour distances, and the duplicates that would make it minus infinity."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from autophagy.metrics.neighbours import nearest
from autophagy.metrics.rows import Rows, as_rows, distinct_rows

_RADIUS_FLOOR = 1e-10  # a fixed floor, so that two sets with as many duplicates pay the same


def knn_entropy(x: Rows, k: int = 1, near: Tensor | None = None) -> float:
    """Kozachenko-Leonenko estimate of the differential entropy, in nats.

    `psi(n) - psi(k) + log c_D + (D / n) sum_i log r_k(i)`, with `c_D` the volume of the unit ball and
    `r_k(i)` the distance from row i to its k-th nearest other row (Kozachenko and Leonenko 1987). Biased in
    many dimensions: compare only at equal n, D and k. Duplicates have radius 0, which is raised to 1e-10;
    `duplicate_share` says how many there are.

    Args:
        x: [n, D].
        k: Which neighbour.
        near: Distances from each row to its k or more nearest others, where they are known.

    Raises:
        TooFewRows: if n < `k + 1`.
    """
    from scipy.special import digamma

    rows = as_rows(x)
    n, width = rows.shape
    near = nearest(rows, k=k) if near is None else near
    radius = np.maximum(near[:, k - 1].cpu().numpy(), _RADIUS_FLOOR)
    log_ball = width / 2 * math.log(math.pi) - math.lgamma(width / 2 + 1)
    return float(digamma(n) - digamma(k) + log_ball + width * np.log(radius).mean())


def duplicate_share(x: Rows) -> float:
    """Share of rows [n, D] that repeat an earlier row: 0 if all differ, (n - 1) / n if all are the same."""
    return 1.0 - len(distinct_rows(x)) / len(x)
