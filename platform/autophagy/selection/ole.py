"""Orthogonal low-rank embedding (Lezama et al. 2018; arXiv 2511.12742): keep latents whose classes do not overlap."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from autophagy.common.samples import LABEL, LATENT
from autophagy.selection.base import Candidates, ScoredSelector
from autophagy.selection.lsf import Refresh


class Ole(ScoredSelector):
    """Keeps a set whose score OLE = sum_c |M_c|_* - |M|_* is low; M holds latents of length 1, M_c those of class c.

    OLE is a sum over samples (see `ole_contributions`), but what one contributes depends on the others. Hence
    rounds: the share `drop` of highest contribution leaves, and the rest is scored anew. `drop = 1` ranks all by
    what they contribute to the whole set.

    OLE is 0 for a single class: the set as a whole gets rid of classes that overlap with others. `per_class` is
    the form that keeps the balance: rounds drop from each class alike. Nor is OLE a detector of outliers: a latent
    in a direction of its own overlaps with no class and contributes nothing.
    """

    strategy: Literal["ole"] = "ole"
    drop: Annotated[float, Field(gt=0, le=1)] = 0.5  # share of the candidates that leaves in every round
    refresh: Refresh = None  # generations after which latents come from a later denoiser; null: always that of 0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({LATENT, LABEL})

    @property
    def refit_every(self) -> int | None:
        return self.refresh

    def scores(self, candidates: Candidates) -> np.ndarray:
        """Rounds survived, less the contribution in the last one, float64 [n]; NaN where the latent has no direction.

        Raises:
            ValueError: the candidates have no latents.
        """
        points, score = candidates.column(LATENT), np.full(len(candidates), np.nan)
        rows = np.argsort(candidates.sample_id)
        length = np.linalg.norm(points[rows].astype(np.float64), axis=1)
        usable = np.isfinite(length) & (length > 0)
        rows = rows[usable]
        latents, label = points[rows] / length[usable, None], candidates.label[rows]
        left, num_rounds = np.arange(rows.size), 0
        while left.size:
            contribution = ole_contributions(latents[left], label[left])
            score[rows[left]] = num_rounds - contribution
            left, num_rounds = left[self._stay(contribution, label[left])], num_rounds + 1
        return score

    def _stay(self, contribution: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Indices of those that survive the round, in rising order; ties by order."""
        group = label if self.per_class else np.zeros_like(label)
        best = [np.flatnonzero(group == c) for c in np.unique(group)]
        best = [rows[np.argsort(contribution[rows], kind="stable")] for rows in best]
        return np.sort(np.concatenate([rows[: int(rows.size * (1 - self.drop))] for rows in best]))


def ole_contributions(latents: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What each row adds to OLE = sum_c |M_c|_* - |M|_*.

    |M|_* = tr (M M^T)^(1/2), so that row i of class c adds ((M_c M_c^T)^(1/2))_ii - ((M M^T)^(1/2))_ii. That is never
    negative (Jensen's operator inequality: the root of a block exceeds the block of the root), nor more than the
    length of the row, and 0 for all rows if and only if the subspaces of the classes are orthogonal.

    Args:
        latents: M, float64 [n, L].
        labels: class of each row, int [n].

    Returns:
        float64 [n], >= 0, rounded to six digits, which is the precision of roots of a Gram matrix.
    """
    contribution = -_root_diagonal(latents)
    for label in np.unique(labels):
        rows = labels == label
        contribution[rows] += _root_diagonal(latents[rows])
    return np.round(contribution, 6).clip(min=0)


def _root_diagonal(m: np.ndarray) -> np.ndarray:
    """Diagonal of (M M^T)^(1/2) for M [n, L], by the smaller of the two Gram matrices, float64 [n]."""
    if len(m) <= m.shape[1]:
        values, u = np.linalg.eigh(m @ m.T)
        return np.square(u) @ np.sqrt(values.clip(min=0))
    # M V = U S, hence u_i s = (M v)_i^2 / s.
    values, v = np.linalg.eigh(m.T @ m)
    real = values > values[-1] * len(m) * np.finfo(np.float64).eps
    return np.square(m @ v[:, real]) @ (1 / np.sqrt(values[real]))
