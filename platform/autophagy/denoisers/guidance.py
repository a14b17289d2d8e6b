"""Away from another prediction: classifier-free guidance, SIMS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import UNet2DModel


@dataclass(frozen=True)
class Denoisers:
    """What predicts the noise: one denoiser, or two of which the second is moved away from (SIMS, 2408.16333)."""

    denoiser: UNet2DModel
    auxiliary: UNet2DModel | None = None
    weight: float = 0.0  # w in (1 + w) eps - w eps_aux

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return next(self.denoiser.parameters()).device

    def noise(self, x: Tensor, steps: Tensor, condition: Tensor | None) -> Tensor:
        """Predicted noise [B, C, H, W] in noisy images x at timesteps [B]."""
        noise = self.denoiser(x, steps, condition).sample
        if self.auxiliary is None:
            return noise
        return (1 + self.weight) * noise - self.weight * self.auxiliary(x, steps, condition).sample
