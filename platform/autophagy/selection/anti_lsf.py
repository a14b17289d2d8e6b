"""Control for latent space filtering: the same score upside down."""

from typing import Literal

import numpy as np

from autophagy.common.samples import CONFIDENCE
from autophagy.selection.base import Candidates
from autophagy.selection.lsf import ConfidenceSelector


class AntiLsf(ConfidenceSelector):
    """Keeps the N of lowest confidence; images without one come last."""

    strategy: Literal["anti_lsf"] = "anti_lsf"

    def scores(self, candidates: Candidates) -> np.ndarray:
        return -candidates.column(CONFIDENCE)
