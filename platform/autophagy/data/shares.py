"""Which class each sample is asked for."""

from __future__ import annotations

import numpy as np


def classes_in_turn(weights: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Classes of the samples `start .. stop - 1` of an endless row in which every class has its share.

    Every beginning of the row is in proportion, as well as whole numbers can be: the m-th sample of class c stands
    where (m - 1/2) / share of c falls. With equal shares classes take turns.

    Args:
        weights: float [C], >= 0, of the classes; not all are 0.
        start: First sample, >= 0.
        stop: Sample after the last.

    Returns:
        int64 [stop - start].
    """
    shares = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    counts = np.ceil(shares * stop).astype(np.int64) + 1
    classes = np.repeat(np.arange(len(shares)), counts)
    number = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    with np.errstate(divide="ignore"):
        due = np.where(shares[classes] > 0, (number + 0.5) / shares[classes], np.inf)
    return classes[np.lexsort((classes, due))[start:stop]]
