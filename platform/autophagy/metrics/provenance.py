"""Where a training set came from: without it, a filter that finds old images seems to find good ones."""

from __future__ import annotations

import numpy as np

from autophagy.common.samples import REAL
from autophagy.metrics.rows import TooFewRows


def real_share(origin: np.ndarray) -> float:
    """Share of real images among images of these origin generations, int [n]."""
    return float((_origins(origin) == REAL).mean())


def mean_age(origin: np.ndarray, generation: int) -> float:
    """Mean number of generations between an image's origin and the `generation` trained on it.

    Samples of generation j have age `generation - j`. Real images count as generation -1, so that their age,
    `generation + 1`, is the highest there is.
    """
    return float(generation - _origins(origin).mean())


def origin_shares(origin: np.ndarray, generation: int) -> dict[str, float]:
    """Share of each origin in the training set of `generation`.

    Returns:
        `share_real`, `share_0` ... `share_{generation - 1}`.
    """
    origins = _origins(origin)
    shares = {"share_real": real_share(origins)}
    return shares | {f"share_{j}": float((origins == j).mean()) for j in range(generation)}


def _origins(origin: np.ndarray) -> np.ndarray:
    origins = np.asarray(origin)
    if not origins.size:
        raise TooFewRows("need at least one origin")
    return origins
