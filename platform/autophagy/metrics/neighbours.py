"""Nearest neighbours and balls, as fast as a matrix product and as exact as a subtraction.

Squared distances of a block of rows come from one float64 matrix product. Its rounding error has a bound, so
the few pairs that could change the answer are known, and computed again by subtraction. Identical rows are
therefore at distance exactly 0, a point on the rim of a closed ball is inside it, and the block size changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autophagy.metrics.rows import TooFewRows, as_rows, two_sets

_BLOCK_ELEMENTS = 1 << 21  # distances held at a time: 16 MiB


def nearest_distances(x: np.ndarray, y: np.ndarray | None = None, k: int = 1) -> np.ndarray:
    """Euclidean distances from each row of `x` to its `k` nearest rows of `y`, ascending.

    Args:
        x: [n, D].
        y: [m, D]; None looks among the other rows of `x` (a row is not its own neighbour, its copies are).
        k: Number of neighbours, at least 1.

    Returns:
        float64 [n, k].

    Raises:
        TooFewRows: if a row has fewer than `k` neighbours.
    """
    return np.sqrt(nearest_squared(x, y, k))


def nearest_squared(x: np.ndarray, y: np.ndarray | None = None, k: int = 1) -> np.ndarray:
    """`nearest_distances`, squared: two of these compare exactly where their roots might not."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    among_itself = y is None
    x, y = two_sets(x, x if y is None else y)
    if len(y) - among_itself < k:
        raise TooFewRows(f"need {k} neighbours, but there are only {len(y) - among_itself}")
    nearest = np.empty((len(x), k))
    for start, squared, error in _squared_blocks(x, y):
        if among_itself:
            own = np.arange(len(squared))
            squared[own, start + own] = np.inf
        limit = np.partition(squared, k - 1, axis=1)[:, k - 1] + 2 * error
        for i, row in enumerate(squared):
            candidates = np.flatnonzero(row <= limit[i])
            nearest[start + i] = np.sort(_exact(x[start + i], y[candidates]))[:k]
    return nearest


def ball_blocks(
    x: np.ndarray, y: np.ndarray, radius_x: np.ndarray, radius_y: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Which rows of `y` lie in the closed balls around rows of `x`, and the other way round, block by block.

    Args:
        x: [n, D].
        y: [m, D].
        radius_x: Squared radius of the ball around each row of `x`, [n].
        radius_y: Squared radius of the ball around each row of `y`, [m].

    Yields:
        The rows of `x` in this block; bool [rows, m], `y_j` is in the ball of `x_i`; bool [rows, m], `x_i` is
        in the ball of `y_j`.
    """
    x, y = two_sets(x, y)
    for start, squared, error in _squared_blocks(x, y):
        rows = slice(start, start + len(squared))
        of_x, of_y = radius_x[rows, None], radius_y[None, :]
        close = np.abs(squared - of_x) <= error[:, None]
        close |= np.abs(squared - of_y) <= error[:, None]
        for i in np.flatnonzero(close.any(axis=1)):
            columns = np.flatnonzero(close[i])
            squared[i, columns] = _exact(x[start + i], y[columns])
        yield rows, squared <= of_x, squared <= of_y


def _squared_blocks(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """First row, squared distances [rows, m] and a bound on their error [rows], for each block of `x`."""
    x, y = as_rows(x), as_rows(y)
    centre = y.mean(axis=0)  # large common offsets would cost digits
    x, y = x - centre, y - centre
    norm_x, norm_y = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
    # |fl(a.b) - a.b| <= D u |a||b| for each of the three products, u = eps / 2; doubled to be safe.
    error = (x.shape[1] + 8) * np.finfo(np.float64).eps * (np.sqrt(norm_x) + np.sqrt(norm_y.max())) ** 2
    num_rows = max(1, _BLOCK_ELEMENTS // len(y))
    for start in range(0, len(x), num_rows):
        rows = slice(start, start + num_rows)
        squared = x[rows] @ y.T
        squared *= -2
        squared += norm_x[rows, None]
        squared += norm_y
        yield start, squared, error[rows]


def _exact(point: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances from a point [D] to others [m, D], by subtraction: same bits for the same pair."""
    from scipy.spatial.distance import cdist

    return cdist(point[None], others, "sqeuclidean")[0]
