"""Selection by likelihood: how well the first model explains an image."""

from typing import Literal

import numpy as np

from autophagy.common.samples import DENOISING_ERROR
from autophagy.selection.base import Candidates, ScoredSelector


class Likelihood(ScoredSelector):
    """Keeps the N of highest likelihood, or of lowest, under the denoiser of generation 0.

    The mean denoising error over timesteps is, up to weights and a constant, the variational bound on the negative
    log likelihood (Ho et al. 2020, equation 14): the lower the error, the likelier the image.
    """

    strategy: Literal["likelihood"] = "likelihood"
    prefer: Literal["top", "bottom"] = "top"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({DENOISING_ERROR})

    def scores(self, candidates: Candidates) -> np.ndarray:
        error = candidates.column(DENOISING_ERROR)
        return -error if self.prefer == "top" else error
