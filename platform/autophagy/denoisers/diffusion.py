"""What a denoiser is trained for: how much noise there is at a timestep, and what is to be predicted of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from autophagy.denoisers.base import Model


class Diffusion:
    """That of DDPM (arXiv 2006.11239): timesteps 0 .. num_train_timesteps - 1, and the noise is predicted.

    x_t = signal[t] x_0 + sigma[t] noise. Another diffusion is another class with these methods.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        from diffusers import DDPMScheduler

        self.num_train_timesteps = model.num_train_timesteps
        levels = DDPMScheduler(num_train_timesteps=model.num_train_timesteps, beta_schedule=model.beta_schedule)
        kept = levels.alphas_cumprod.to(device)
        self.signal, self.sigma = kept.sqrt(), (1 - kept).sqrt()  # float32 [T]

    def timesteps(self, uniform: Tensor) -> Tensor:
        """Timesteps to train on, int64 [B], from uniform numbers in (0, 1): all are alike."""
        return uniform.mul(self.num_train_timesteps).long()

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Images x0 [B, C, H, W] at timesteps t [B]: a draw of q(x_t | x_0)."""
        return self.signal[t, None, None, None] * x0 + self.sigma[t, None, None, None] * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What is to be predicted of them, [B, C, H, W]."""
        return noise

    def denoised(self, x: Tensor, predicted: Tensor, t: int) -> Tensor:
        """The prediction of x_0 [B, C, H, W] that a prediction for x at one timestep means, within [-1, 1]."""
        return ((x - self.sigma[t] * predicted) / self.signal[t]).clamp(-1, 1)
