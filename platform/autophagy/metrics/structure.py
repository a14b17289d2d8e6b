"""Shape of a set in its space: spread, number of directions, and how orthogonal the classes are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autophagy.common.samples import UNLABELLED
from autophagy.common.seeds import rng_for
from autophagy.metrics.rows import Rows, TooFewRows, as_rows

_OLE_PER_CLASS = 50  # rows at most


def covariance_root(x: Tensor) -> Tensor:
    """R [min(n, D), D] with R'R the unbiased covariance of `x`, float64 [n, D], n >= 2."""
    centred = x - x[0]  # copies of one row become exactly 0
    centred -= centred.mean(dim=0)
    return torch.linalg.qr(centred.div_((len(x) - 1) ** 0.5), mode="r").R


def total_variance(x: Rows) -> float:
    """Trace of the unbiased covariance of `x` [n, D].

    Raises:
        TooFewRows: if n < 2.
    """
    return float(as_rows(x, at_least=2).var(dim=0, correction=1).sum())


def spectrum(x: Rows, num: int = 16) -> np.ndarray:
    """Standard deviations of `x` along its principal directions, the widest first: all shrink, or a few are left.

    The top singular values of the centred rows over sqrt(n - 1) (Jolliffe, Principal Component Analysis, section
    3.5), so that they do not grow with n. Their squares over all directions sum to `total_variance`.

    Args:
        x: [n, D].
        num: How many.

    Returns:
        float64 [min(num, D)], falling, in units of the features; n rows span n - 1 directions, the others have 0.

    Raises:
        TooFewRows: if n < 2.
    """
    rows = as_rows(x, at_least=2)
    deviations = np.zeros(min(num, rows.shape[1]))
    values = _deviations(rows)[: len(deviations)]
    deviations[: len(values)] = values.cpu().numpy()
    return deviations


def effective_rank(x: Rows) -> float:
    """Number of directions that `x` [n, D] spreads over: `exp` of the entropy of its normalised `spectrum`.

    Roy and Vetterli 2007, of the centred rows. Scale-free; 1 on a line, D for equal spread in all directions, 0 if
    all rows are the same.

    Raises:
        TooFewRows: if n < 2.
    """
    deviations = _deviations(as_rows(x, at_least=2))
    total = deviations.sum()
    return _exp_entropy(deviations / total) if total > 0 else 0.0


def vendi_score(x: Rows) -> float:
    """Effective number of different images (Friedman and Dieng 2023, equation 1): 1 if all point the same way.

    `exp` of the entropy of the eigenvalues of K / n, with K the cosine similarity of the rows, not centred. A row of
    zeros has no direction: it is taken to be like other rows of zeros and unlike all else. At most D + 1 and n, and
    growing with n until then: compare only values from equal numbers.

    Args:
        x: [n, D].

    Returns:
        In [1, n].
    """
    rows = as_rows(x)
    n, width = rows.shape
    largest = rows.abs().amax(dim=1, keepdim=True)
    rows = rows / torch.where(largest > 0, largest, 1.0)  # before squaring, so that it neither over- nor underflows
    rows /= torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(1.0)
    num_zero = int((largest == 0).sum())
    # K = UU' and U'U have the same eigenvalues but for zeros; the rows of zeros are a block of ones by themselves.
    gram = rows.T @ rows if width < n else rows @ rows.T
    shares = torch.linalg.eigvalsh(gram / n)
    return max(1.0, _exp_entropy(torch.cat([shares, shares.new_full((1,), num_zero / n)])))


def _deviations(x: Tensor) -> Tensor:
    return torch.linalg.svdvals(covariance_root(x))


def _exp_entropy(shares: Tensor) -> float:
    """`exp(-sum p log p)`, where rounding may have left shares of 0 a little below."""
    return float(torch.special.entr(shares.clamp_min(0)).sum().exp())


def ole_score(latents: Rows, labels: np.ndarray) -> float:
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
    rows = torch.linalg.qr(latents.T, mode="r").R.T
    per_class = sum(_nuclear_norm(rows[np.flatnonzero(labels == label)]) for label in np.unique(labels))
    return max(0.0, per_class - _nuclear_norm(rows))


def _nuclear_norm(x: Tensor) -> float:
    return float(torch.linalg.svdvals(x).sum())


def balanced_unit_rows(
    latents: Rows, labels: np.ndarray, per_class: int, rng: np.random.Generator
) -> tuple[Tensor, np.ndarray]:
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
    rows = as_rows(latents[index])
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1.0), labels[index]


def balanced_ole(latents: Rows, labels: np.ndarray, num_classes: int, seed: int) -> float:
    """`ole_score` of `balanced_unit_rows`: half of an even share for each of `num_classes` classes, at most 50 rows.

    So it is the same number of rows in every generation, and they are nearly always there if labels are drawn.

    Args:
        latents: [n, L].
        labels: int [n].
        num_classes: Classes that there should be.
        seed: Of the rows that are drawn.

    Raises:
        TooFewRows: see `balanced_unit_rows`.
    """
    per_class = min(_OLE_PER_CLASS, len(labels) // (2 * max(1, num_classes)))
    return ole_score(*balanced_unit_rows(latents, labels, per_class, rng_for(seed, "ole")))
