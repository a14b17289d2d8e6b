"""What every metric asks of its input: rows are images, finite float64, enough of them."""

from __future__ import annotations

import numpy as np


class TooFewRows(ValueError):
    """There are too few images for this metric to be defined."""


def as_rows(x: np.ndarray, at_least: int = 1) -> np.ndarray:
    """`x` as a contiguous float64 [n, D] array.

    Raises:
        TooFewRows: if n < `at_least`.
        ValueError: if `x` is not two-dimensional or has a value that is not finite.
    """
    rows = np.ascontiguousarray(x, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"need an array [n, D], got shape {rows.shape}")
    if len(rows) < at_least:
        raise TooFewRows(f"need at least {at_least} rows, got {len(rows)}")
    if not np.isfinite(rows).all():
        raise ValueError("features must be finite, got NaN or infinity")
    return rows


def two_sets(x: np.ndarray, y: np.ndarray, at_least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """`as_rows` of both sets, which must live in the same space."""
    first, second = as_rows(x, at_least), as_rows(y, at_least)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"both sets need the same width, got {first.shape[1]} and {second.shape[1]}")
    return first, second


def distinct_rows(x: np.ndarray) -> np.ndarray:
    """The rows of `x` without repetitions, in order of first appearance, float64 [n_distinct, D]."""
    rows = as_rows(x) + 0.0  # -0.0 and 0.0 are one value but two bit patterns
    keys = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, first = np.unique(keys, return_index=True)
    return rows[np.sort(first)]
