"""Candidates, and what all selectors share: checks, real images first, equal shares for classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar, Literal

import numpy as np

from autophagy.common.errors import UserError
from autophagy.common.samples import CONFIDENCE, LABEL, REAL, UNLABELLED
from autophagy.common.section import Section


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a selector may look at: the columns of n candidate images, of `samples.COLUMNS`; those that it `needs`.

    Raises:
        ValueError: columns of different lengths.
    """

    sample_id: np.ndarray  # int64 [n], unique
    generation: np.ndarray  # int32 [n], origin; REAL = -1
    label: np.ndarray  # int64 [n], UNLABELLED = -1
    features: np.ndarray | None = None  # float32 [n, D]
    confidence: np.ndarray | None = None  # float32 [n], own-label probe confidence in [0, 1], NaN if none
    latent: np.ndarray | None = None  # float32 [n, L], bottleneck of the denoiser of generation 0
    pixels: np.ndarray | None = None  # uint8 [n, H * W * C]
    denoising_error: np.ndarray | None = None  # float32 [n], of the denoiser of generation 0, mean over timesteps
    trajectory_variance: np.ndarray | None = None  # float32 [n], of the last predictions of x_0; NaN for real images
    score: np.ndarray | None = None  # float [n], higher is preferred; `select` asks its selector for it where missing
    reference: Candidates | None = None  # the fixed real set R, for ideas that compare with it

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self._columns().items() if column is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of different lengths: {lengths}")

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def is_real(self) -> np.ndarray:
        """Which candidates are real images, bool [n]."""
        return self.generation == REAL

    def column(self, name: str) -> np.ndarray:
        """A column that is needed.

        Raises:
            ValueError: it is not there.
        """
        found: np.ndarray | None = getattr(self, name)
        if found is None:
            raise ValueError(f"the candidates have no {name}")
        return found

    def beside_real(self) -> Candidates:
        """The same candidates; where no reference is given, the real ones among them are it."""
        return self if self.reference is not None else replace(self, reference=self.take(np.flatnonzero(self.is_real)))

    def take(self, indices: np.ndarray) -> Candidates:
        """The candidates at these row indices, in this order, beside the same reference."""
        columns: dict[str, Any] = {
            name: None if column is None else column[indices] for name, column in self._columns().items()
        }
        return Candidates(**columns, reference=self.reference)

    def of_class(self, label: int) -> Candidates:
        """The candidates of one class, beside the reference of that class if it has any."""
        own = self.take(np.flatnonzero(self.label == label))
        if self.reference is None or not (self.reference.label == label).any():
            return own
        return replace(own, reference=self.reference.of_class(label))

    def _columns(self) -> dict[str, np.ndarray | None]:
        return {name: column for name, column in vars(self).items() if name != "reference"}


class ProbeSettings(Section):
    """Where in a denoiser the softmax probe looks."""

    timestep: Literal["auto"] | int | tuple[int, ...] = "auto"  # auto: best held-out accuracy on a grid
    pool: Literal["flatten", "mean", "max"] = "flatten"

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The timesteps that were given; empty for auto."""
        if self.timestep == "auto":
            return ()
        return (self.timestep,) if isinstance(self.timestep, int) else self.timestep


class Selector(Section, ABC):
    """Ranks candidates. Its fields are its configuration; `strategy` names it.

    A subclass is one published idea. It derives from `ScoredSelector` where the idea scores samples, from
    `geometry.GeometricSelector` where it ranks points, and implements `_rank` itself only where neither fits.

    Every selector keeps to this: ties break by `sample_id`, so that the order of the candidates matters only to ideas
    that draw from them; and what has no score or no finite place comes last, without a warning of numpy's.
    """

    compares_with_real: ClassVar[bool] = False  # whether `Candidates.reference` is read
    strategy: str
    per_class: bool = False  # equal shares for all classes; what a small class leaves goes to the others
    protect_real: bool = False  # real images are kept before any synthetic one

    @property
    def needs(self) -> frozenset[str]:
        """Columns of the candidates that are read beyond sample_id and generation.

        The label is one of them only if every candidate must have one, whatever `per_class` says.
        """
        return frozenset()

    @property
    def probe(self) -> ProbeSettings | None:
        """The probe whose confidence is read; None if none is."""
        return None

    @property
    def refit_every(self) -> int | None:
        """Generations from one fit of that probe to the next; None: fitted once."""
        return None

    def select(self, candidates: Candidates, num_keep: int, rng: np.random.Generator) -> np.ndarray:
        """Choose `min(num_keep, n)` of the n candidates.

        Args:
            candidates: n rows.
            num_keep: how many to keep, >= 0.
            rng: the only source of randomness.

        Returns:
            int64 [min(num_keep, n)] row indices, the most preferred first. With `per_class` the best of every
            class come first, then the second best, and so on, lower labels first.

        Raises:
            ValueError: `num_keep` < 0.
            UserError: a column that the strategy needs is missing.
        """
        if num_keep < 0:
            raise ValueError(f"num_keep must be >= 0, got {num_keep}")
        num_keep = min(num_keep, len(candidates))
        if num_keep == 0:
            return np.empty(0, dtype=np.int64)
        self._check(candidates)
        if self.compares_with_real:
            candidates = candidates.beside_real()
        # A score may depend on the whole set: it is taken here, before classes or real images are told apart.
        if candidates.score is None:
            candidates = replace(candidates, score=self.scores(candidates))
        if not self.protect_real:
            return self._order(candidates, num_keep, rng)
        real, synthetic = np.flatnonzero(candidates.is_real), np.flatnonzero(~candidates.is_real)
        num_real = min(num_keep, real.size)
        kept = real[self._order(candidates.take(real), num_real, rng)]
        rest = self._order(candidates.take(synthetic), num_keep - num_real, rng, candidates.label[kept])
        return np.concatenate([kept, synthetic[rest]])

    def scores(self, candidates: Candidates) -> np.ndarray | None:
        """Score of each candidate, float [n], higher is preferred; None if the idea has none."""
        return None

    @abstractmethod
    def _rank(self, candidates: Candidates, num_keep: int, rng: np.random.Generator) -> np.ndarray:
        """Row indices, at least `num_keep` of them, the most preferred first; 1 <= num_keep <= n."""

    def _order(
        self,
        candidates: Candidates,
        num_keep: int,
        rng: np.random.Generator,
        taken: np.ndarray | None = None,
    ) -> np.ndarray:
        """`_rank` cut to `num_keep`; with `per_class` in turns, given the labels `taken` before."""
        if num_keep == 0:
            return np.empty(0, dtype=np.int64)
        if not self.per_class:
            return np.asarray(self._rank(candidates, num_keep, rng)[:num_keep], dtype=np.int64)
        labels, sizes = np.unique(candidates.label, return_counts=True)
        have = np.zeros_like(labels) if taken is None else np.array([np.sum(taken == c) for c in labels])
        quotas = _turns(have, sizes, num_keep)[1]
        kept = []
        for label, quota in zip(labels, quotas, strict=True):
            rows = np.flatnonzero(candidates.label == label)
            # A class without a quota draws too: then a larger num_keep only makes the order longer.
            kept.append(rows[self._rank(candidates.of_class(label), max(int(quota), 1), rng)[:quota]])
        return np.concatenate(kept)[_turns(have, quotas, num_keep)[0]]

    def _check(self, candidates: Candidates) -> None:
        """Raise UserError if a column that this selector reads holds nothing."""
        rows = {"the candidates": candidates}
        if self.compares_with_real and candidates.reference is not None:
            rows["the real images of the reference"] = candidates.reference
        for whose, name in product(rows, sorted(self.needs)):
            if getattr(rows[whose], name) is None:
                raise UserError(
                    f"selection.strategy = {self.strategy!r}: needs {name}, and {whose} have none; "
                    f"give a column {name}, or use a strategy that needs none, such as random"
                )
        if CONFIDENCE in self.needs and np.isnan(candidates.column(CONFIDENCE)).all():
            raise UserError(
                f"selection.strategy = {self.strategy!r}: needs labels and a probe, but no candidate has a "
                "confidence; use data with labels, or a strategy that needs none, such as random"
            )
        if (self.per_class or LABEL in self.needs) and (candidates.label == UNLABELLED).any():
            setting = f"strategy = {self.strategy!r}" if LABEL in self.needs else f"per_class = true ({self.strategy})"
            raise UserError(
                f"selection.{setting}: needs labels, but some candidates have none; "
                "use data with labels, or a strategy without classes, such as random"
            )


class ScoredSelector(Selector):
    """Keeps the candidates of highest score; those without one, that is NaN, come last."""

    @abstractmethod
    def scores(self, candidates: Candidates) -> np.ndarray:
        """Score of each candidate, float [n], higher is preferred, NaN where there is none."""

    def _rank(self, candidates: Candidates, num_keep: int, rng: np.random.Generator) -> np.ndarray:
        assert candidates.score is not None, "select() fills it"
        return best_first(candidates.score, candidates.sample_id)


def best_first(score: np.ndarray, sample_id: np.ndarray) -> np.ndarray:
    """Row indices by falling score, int64 [n]; ties by sample_id, NaN last."""
    return np.lexsort((sample_id, -score))


def _turns(have: np.ndarray, sizes: np.ndarray, num_turns: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups take turns: the next goes to the group that has least, of those with something left to give.

    Args:
        have: int [G], what each group has before the first turn.
        sizes: int [G], what each group can still give.
        num_turns: <= sum of sizes.

    Returns:
        int64 [num_turns] order of the groups' concatenated items, and int64 [G] how many each group gave.
    """
    group = np.repeat(np.arange(sizes.size), sizes)
    rank = np.concatenate([h + np.arange(size) for h, size in zip(have, sizes, strict=True)])
    order = np.lexsort((group, rank))[:num_turns]
    return order, np.bincount(group[order], minlength=sizes.size)
