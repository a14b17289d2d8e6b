"""The forward process: how much noise there is at a timestep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autophagy.denoisers.config import Model

if TYPE_CHECKING:
    from diffusers import DDPMScheduler


def noise_schedule(model: Model) -> DDPMScheduler:
    """The forward process q(x_t | x_0); t is 0 .. num_train_timesteps - 1."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(num_train_timesteps=model.num_train_timesteps, beta_schedule=model.beta_schedule)
