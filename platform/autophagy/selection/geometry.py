"""What selectors that look at where candidates lie have in common: the space, the real points, and points missing."""

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np

from autophagy.common.errors import UserError
from autophagy.selection.base import Candidates, ScoredSelector, Selector


class PointSelector(Selector):
    """Knows where candidates lie."""

    feature_space: Literal["features", "latent", "pixels"] = "features"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.feature_space})

    def _points(self, candidates: Candidates) -> np.ndarray:
        """Where the candidates lie, float32 [n, D]."""
        return candidates.column(self.feature_space).astype(np.float32, copy=False)

    def _placed(self, candidates: Candidates) -> np.ndarray:
        """Row indices of the candidates whose point is finite, by sample_id."""
        rows = np.argsort(candidates.sample_id)
        return rows[np.isfinite(self._points(candidates)).all(axis=1)[rows]]

    def _real(self, candidates: Candidates) -> Candidates:
        """The real images to compare with: the reference, by sample_id, without those whose point is not finite.

        Raises:
            UserError: there are none.
        """
        reference = candidates.beside_real().reference
        assert reference is not None
        real = reference.take(self._placed(reference))
        if not len(real):
            raise UserError(
                f"selection.strategy = {self.strategy!r}: compares with real images, and there are none; "
                "give a reference or real candidates, or use a strategy that needs none, such as greedy"
            )
        return real


class GeometricSelector(PointSelector):
    """Ranks points. A candidate whose point is not finite comes last, by sample_id."""

    @abstractmethod
    def _rank_points(
        self, points: np.ndarray, candidates: Candidates, num_keep: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Row indices, at least `num_keep` of them, the most preferred first; 1 <= num_keep <= n.

        Args:
            points: float32 [n, D], finite.
            candidates: the same n candidates.
        """

    def _rank(self, candidates: Candidates, num_keep: int, rng: np.random.Generator) -> np.ndarray:
        points = self._points(candidates)
        finite = np.isfinite(points).all(axis=1)
        rows, rest = np.flatnonzero(finite), np.flatnonzero(~finite)
        rest = rest[np.argsort(candidates.sample_id[rest])]
        if not rows.size:
            return rest
        kept = self._rank_points(points[rows], candidates.take(rows), min(num_keep, rows.size), rng)
        return np.concatenate([rows[kept], rest])


class RealnessSelector(PointSelector, ScoredSelector):
    """Scores points by how they compare with real ones; with `per_class`, with the real ones of the same class."""

    compares_with_real: ClassVar[bool] = True

    @abstractmethod
    def _score_points(self, points: np.ndarray, candidates: Candidates) -> np.ndarray:
        """Score of each candidate, float [n], n >= 1.

        Args:
            points: float32 [n, D], finite.
            candidates: the same n candidates, by sample_id.
        """

    def scores(self, candidates: Candidates) -> np.ndarray:
        """Score of each candidate, float64 [n], higher is preferred; NaN where its point is not finite.

        Raises:
            UserError: there are no real images to compare with.
        """
        candidates = candidates.beside_real()
        score = np.full(len(candidates), np.nan)
        placed = self._placed(candidates)
        group = candidates.label if self.per_class else np.zeros_like(candidates.label)
        for label in np.unique(group[placed]):
            rows = placed[group[placed] == label]
            part = candidates.take(rows)
            part = part.of_class(int(label)) if self.per_class else part
            score[rows] = self._score_points(self._points(part), part)
        return score
