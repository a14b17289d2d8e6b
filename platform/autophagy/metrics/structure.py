"""Shape of a set in its space: spread, and how orthogonal the classes are."""

from __future__ import annotations

import numpy as np

from autophagy.metrics.rows import TooFewRows, as_rows
from autophagy.records import UNLABELLED


def total_variance(x: np.ndarray) -> float:
    """Trace of the unbiased covariance of `x` [n, D].

    Raises:
        TooFewRows: if n < 2.
    """
    return float(as_rows(x, at_least=2).var(axis=0, ddof=1).sum())


def ole_score(latents: np.ndarray, labels: np.ndarray) -> float:
    """Orthogonal low-rank embedding score `sum_c |M_c|_* - |M|_*`, nuclear norms (Lezama et al. 2018).

    0 exactly if the subspaces of the classes are orthogonal; the more they share, the higher. It grows with
    the number of rows and their length, so callers that compare sets fix both: see `balanced_unit_rows`.

    Args:
        latents: M, [n, L].
        labels: Class of each row, int [n].

    Returns:
        At least 0.
    """
    latents, labels = as_rows(latents), np.asarray(labels)
    if labels.shape != latents.shape[:1]:
        raise ValueError(f"need one label per row, got {labels.shape} for {len(latents)} rows")
    # A rotation of the space changes no norm: n latents need at most n coordinates.
    rows = np.asarray(np.linalg.qr(latents.T, mode="r")).T
    per_class = sum(np.linalg.norm(rows[labels == label], "nuc") for label in np.unique(labels))
    return max(0.0, float(per_class - np.linalg.norm(rows, "nuc")))


def balanced_unit_rows(
    latents: np.ndarray, labels: np.ndarray, per_class: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`per_class` random rows of every class, each scaled to length 1: what `ole_score` can be compared on.

    Args:
        latents: [n, L].
        labels: int [n]; rows that are UNLABELLED are left out.
        per_class: Rows of each class, the same for all sets to compare.
        rng: Draws the rows, without replacement.

    Returns:
        float64 [num_classes * per_class, L] (a row of zeros stays one) and their labels.

    Raises:
        TooFewRows: if there is no class, or a class has fewer than `per_class` rows.
    """
    labels = np.asarray(labels)
    classes, counts = np.unique(labels[labels != UNLABELLED], return_counts=True)
    if per_class < 1 or not len(classes) or counts.min() < per_class:
        raise TooFewRows(f"need {max(1, per_class)} rows of every class, the class sizes are {counts.tolist()}")
    chosen = [rng.choice(np.flatnonzero(labels == label), per_class, replace=False) for label in classes]
    index = np.concatenate(chosen)
    rows = as_rows(np.asarray(latents)[index])
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0), labels[index]
