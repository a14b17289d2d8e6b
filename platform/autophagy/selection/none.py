"""No selection: the first candidates there are."""

from typing import Literal

import numpy as np

from autophagy.selection.base import Candidates, Selector


class NoSelection(Selector):
    """Keeps the first N in sample order, that is by sample_id.

    Ids grow with the origin generation, so that out of a pool of several generations this keeps the oldest;
    `random` is the neutral choice there.
    """

    strategy: Literal["none"] = "none"

    def _rank(self, candidates: Candidates, num_keep: int, rng: np.random.Generator) -> np.ndarray:
        return np.argsort(candidates.sample_id)
