"""What a denoiser is trained for: how much noise there is at a timestep, and what is to be predicted of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from autophagy.denoisers.base import Model


class Diffusion:
    """That of DDPM (arXiv 2006.11239): timesteps 0 .. num_train_timesteps - 1, and the noise is predicted.

    Another diffusion is another class with these methods.
    """

    def __init__(self, model: Model) -> None:
        from diffusers import DDPMScheduler

        self.num_train_timesteps, self.beta_schedule = model.num_train_timesteps, model.beta_schedule
        self._forward = DDPMScheduler(**self._levels)

    @property
    def _levels(self) -> dict[str, Any]:
        return {"num_train_timesteps": self.num_train_timesteps, "beta_schedule": self.beta_schedule}

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Timesteps to train on, int64 [count], on the CPU: all alike."""
        return torch.randint(self.num_train_timesteps, (count,), generator=generator)

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Images x0 [B, C, H, W] at timesteps t [B]: a draw of q(x_t | x_0)."""
        return self._forward.add_noise(x0, noise, t)

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What is to be predicted of them, [B, C, H, W]."""
        return noise

    def sampler(self, kind: str, num_steps: int) -> Any:
        """The way back in `num_steps` steps: a scheduler of diffusers, whose steps give the predicted x_0 too.

        Args:
            kind: `ddim` (2010.02502), or `ddpm`, which draws noise on the way.
            num_steps: At most `num_train_timesteps`.
        """
        from diffusers import DDIMScheduler, DDPMScheduler

        scheduler = (DDIMScheduler if kind == "ddim" else DDPMScheduler)(**self._levels)
        scheduler.set_timesteps(num_steps)
        return scheduler
