"""Uniform selection: the baseline of every comparison."""

from typing import Literal

import numpy as np

from autophagy.selection.base import Candidates, Selector


class Random(Selector):
    """Keeps N uniformly without replacement: `rng.permutation(n)[:N]`."""

    strategy: Literal["random"] = "random"

    def _rank(self, candidates: Candidates, num_keep: int, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(candidates))[:num_keep]
