"""From noise to images."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

from autophagy.common.seeds import seed_for
from autophagy.denoisers.config import Generation, Model
from autophagy.denoisers.guidance import Denoisers
from autophagy.denoisers.noise import null_condition, per_sample_noise, to_uint8
from autophagy.denoisers.precision import autocast

LAST_STEPS = 10  # of sampling, whose predictions of x_0 are compared


@torch.no_grad()
def sample_images(
    denoisers: Denoisers, model: Model, generation: Generation, labels: np.ndarray, seeds: list[int]
) -> tuple[Tensor, Tensor]:
    """Sample by DDIM (2010.02502) or ancestral DDPM (2006.11239), with guidance (2207.12598) if asked for.

    Args:
        labels: int64 [B], the class asked for; UNLABELLED for an unconditional denoiser.
        seeds: one per image; image i depends on labels[i] and seeds[i], whatever else is in the batch.

    Returns:
        Images uint8 [B, H, W, C], and the variance of the predictions of x_0 over the last LAST_STEPS steps, mean
        over pixels, float32 [B]: what arXiv 2406.09358 tells hallucinated images by.
    """
    from diffusers import DDIMScheduler, DDPMScheduler

    denoiser, device = denoisers.denoiser, denoisers.device
    kind = DDIMScheduler if generation.sampler == "ddim" else DDPMScheduler
    scheduler = kind(num_train_timesteps=model.num_train_timesteps, beta_schedule=model.beta_schedule)
    scheduler.set_timesteps(generation.num_inference_steps)
    size, channels = denoiser.config.sample_size, denoiser.config.in_channels
    x = per_sample_noise(seeds, (channels, size, size)).to(device)
    # Ancestral steps draw noise too: a generator per image, on the CPU, so that no batch and no device matters.
    draws = [torch.Generator().manual_seed(seed_for(seed, "ancestral-noise")) for seed in seeds]
    null = null_condition(denoiser)
    condition = None if null is None else torch.from_numpy(labels).to(device)
    free_condition = None if null is None else torch.full((len(x),), null, device=device)
    extra = {} if generation.sampler == "ddim" else {"generator": draws}
    last: deque[Tensor] = deque(maxlen=LAST_STEPS)
    with autocast(generation.precision, device):
        for t in scheduler.timesteps:
            steps = t.expand(len(x)).to(device)
            noise = denoisers.noise(x, steps, condition)
            if generation.guidance_scale is not None:
                free = denoisers.noise(x, steps, free_condition)
                noise = free + generation.guidance_scale * (noise - free)
            step = scheduler.step(noise.float(), t, x, **extra)
            x = step.prev_sample
            last.append(step.pred_original_sample)
    variance = torch.stack(list(last)).var(dim=0, correction=0).mean(dim=(1, 2, 3))
    return to_uint8(x), variance
