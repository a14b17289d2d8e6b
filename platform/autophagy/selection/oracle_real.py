"""Control: what a perfect detector of real images would keep."""

from typing import Literal

import numpy as np

from autophagy.selection.base import Candidates, Selector


class OracleReal(Selector):
    """Keeps real images first, then synthetic ones, each in random order."""

    strategy: Literal["oracle_real"] = "oracle_real"

    def _rank(self, candidates: Candidates, num_keep: int, rng: np.random.Generator) -> np.ndarray:
        order = rng.permutation(len(candidates))
        return order[np.argsort(~candidates.is_real[order], kind="stable")]
