"""What a denoiser knows of an image: latents of its encoder, and how well it predicts the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from autophagy.common.seeds import seed_for
from autophagy.denoisers.config import Model
from autophagy.denoisers.diffusion import noise_schedule
from autophagy.denoisers.noise import null_condition, per_sample_noise, to_unit
from autophagy.denoisers.unet import bottleneck

if TYPE_CHECKING:
    from diffusers import UNet2DModel

ERROR_SHARES = (0.05, 0.15, 0.3, 0.45, 0.6, 0.8)  # of num_train_timesteps: where the denoising error is taken


def latents(
    denoiser: UNet2DModel,
    schedule: Any,
    images: Tensor,
    sample_ids: np.ndarray,
    timestep: int,
    *,
    pool: str,
    seed: int,
) -> Tensor:
    """Latents float32 [B, L] of uint8 images [B, H, W, C]: diffused to `timestep`, encoded, pooled (LSF, section 3).

    The noise is fixed per (sample, timestep): the same image has the same latent in every generation and batch.
    """
    x0 = to_unit(images)
    seeds = [seed_for(seed, "latent-noise", int(i), timestep) for i in sample_ids]
    noise = per_sample_noise(seeds, tuple(x0.shape[1:])).to(x0.device)
    t = torch.full((len(x0),), timestep, device=x0.device)
    hidden = bottleneck(denoiser, schedule.add_noise(x0, noise, t), timestep).float()
    if pool == "mean":
        return hidden.mean(dim=(2, 3))
    if pool == "max":
        return hidden.amax(dim=(2, 3))
    return hidden.flatten(1)


@torch.no_grad()
def denoising_error(
    denoiser: UNet2DModel, schedule: Any, images: Tensor, sample_ids: np.ndarray, label: Tensor, *, seed: int
) -> Tensor:
    """Mean squared error of the predicted noise over ERROR_SHARES of the timesteps, float32 [B].

    The simplified bound of the negative log-likelihood (DDPM, eq. 14) up to scale: low error, high likelihood.

    Args:
        images: uint8 [B, H, W, C].
        sample_ids: int64 [B]; the noise is fixed per (sample, timestep).
        label: int64 [B], the condition; UNLABELLED is the null condition.
    """
    x0 = to_unit(images)
    null = null_condition(denoiser)
    condition = None if null is None else torch.where(label < 0, null, label)
    errors = []
    for share in ERROR_SHARES:
        timestep = int(share * schedule.config.num_train_timesteps)
        seeds = [seed_for(seed, "error-noise", int(i), timestep) for i in sample_ids]
        noise = per_sample_noise(seeds, tuple(x0.shape[1:])).to(x0.device)
        t = torch.full((len(x0),), timestep, device=x0.device)
        predicted = denoiser(schedule.add_noise(x0, noise, t), t, condition).sample
        errors.append((predicted - noise).square().mean(dim=(1, 2, 3)))
    return torch.stack(errors).mean(dim=0)


ENCODE_BATCH = 256


class Encoder:
    """The denoiser of a generation as what a probe is fitted on: images to pooled latents at a timestep."""

    def __init__(self, denoiser: UNet2DModel, model: Model, pool: str, seed: int) -> None:
        self.denoiser, self.model = denoiser, model
        self.schedule = noise_schedule(self.model)
        self.pool, self.seed, self.device = pool, seed, next(denoiser.parameters()).device

    def encode(self, images: np.ndarray, sample_id: np.ndarray, timestep: int) -> np.ndarray:
        """Latents float32 [n, L] of uint8 images [n, H, W, C]."""
        parts = []
        for start in range(0, len(images), ENCODE_BATCH):
            part = slice(start, start + ENCODE_BATCH)
            x = torch.from_numpy(images[part]).to(self.device)
            hidden = latents(self.denoiser, self.schedule, x, sample_id[part], timestep, pool=self.pool, seed=self.seed)
            parts.append(hidden.cpu().numpy())
        return np.concatenate(parts)
