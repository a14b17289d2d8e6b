"""Control: class balance alone."""

from typing import Literal

import numpy as np

from autophagy.selection.base import Candidates, Selector


class ClassBalancedRandom(Selector):
    """Keeps equally many of every class, uniformly within a class: `random` with `per_class`."""

    strategy: Literal["class_balanced_random"] = "class_balanced_random"
    per_class: Literal[True] = True

    def _rank(self, candidates: Candidates, num_keep: int, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(candidates))[:num_keep]
