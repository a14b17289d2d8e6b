"""Control: age alone. A score that does no better is a detector of old data."""

from typing import Literal

import numpy as np

from autophagy.selection.base import Candidates, Selector, best_first


class OldestFirst(Selector):
    """Keeps the N of the earliest origin generations, real images first, by sample_id within a generation."""

    strategy: Literal["oldest_first"] = "oldest_first"

    def scores(self, candidates: Candidates) -> np.ndarray:
        return -candidates.generation.astype(np.float32)

    def _rank(self, candidates: Candidates, num_keep: int, rng: np.random.Generator) -> np.ndarray:
        return best_first(self.scores(candidates), candidates.sample_id)
