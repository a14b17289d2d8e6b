"""Latent space filtering (arXiv 2511.12742): keep what a probe on the first model's latents is sure of."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from autophagy.common.samples import CONFIDENCE
from autophagy.common.section import since
from autophagy.selection.base import Candidates, ProbeSettings, ScoredSelector

Timestep = Annotated[int, Field(ge=0, le=999)]
Refresh = Annotated[Annotated[int, Field(ge=1)] | None, since(None)]


class ConfidenceSelector(ScoredSelector):
    """What every ranking by probe confidence has in common: where in the denoiser the probe looks.

    The confidence of image x with label y is xi(x, y) = softmax(W h + b)_y, where h is the bottleneck latent
    of x in the denoiser of generation 0 and (W, b) a multinomial logistic regression fitted once on real
    latents. With `refresh` m both are replaced after every m generations: by the denoiser of that generation, and
    a regression on its latents of the real images there are by then.
    """

    # Diffusion timesteps of the latents: that of the best held-out accuracy, one, or several averaged.
    timestep: Literal["auto"] | Timestep | Annotated[tuple[Timestep, ...], Field(min_length=1)] = "auto"
    pool: Literal["flatten", "mean", "max"] = "flatten"  # over the positions of the bottleneck
    refresh: Refresh = None  # generations from one fit to the next; null: fitted once

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({CONFIDENCE})

    @property
    def probe(self) -> ProbeSettings:
        return ProbeSettings(timestep=self.timestep, pool=self.pool)

    @property
    def refit_every(self) -> int | None:
        return self.refresh


class Lsf(ConfidenceSelector):
    """Keeps the N of highest confidence; images without one come last."""

    strategy: Literal["lsf"] = "lsf"

    def scores(self, candidates: Candidates) -> np.ndarray:
        return candidates.column(CONFIDENCE)
