"""From noise to images."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

from autophagy.common.seeds import seed_for
from autophagy.denoisers.base import Denoiser
from autophagy.denoisers.config import Generation
from autophagy.denoisers.diffusion import Diffusion
from autophagy.denoisers.guidance import Predict
from autophagy.denoisers.noise import per_sample_noise, to_uint8
from autophagy.denoisers.precision import autocast

LAST_STEPS = 10  # of sampling, whose predictions of x_0 are compared


@torch.no_grad()
def sample_images(
    denoiser: Denoiser, predict: Predict, generation: Generation, labels: np.ndarray, seeds: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Sample by DDIM (arXiv 2010.02502) or ancestral DDPM (2006.11239).

    Args:
        denoiser: Whose images are made.
        predict: What predicts for it, see `guide`.
        generation: How.
        labels: int64 [B], the class asked for; of no meaning to an unconditional denoiser.
        seeds: one per image; image i depends on labels[i] and seeds[i], whatever else is in the batch.

    Returns:
        Images uint8 [B, H, W, C], and the variance of the predictions of x_0 over the last LAST_STEPS steps, mean
        over pixels, float32 [B]: what arXiv 2406.09358 tells hallucinated images by.
    """
    device, shape = denoiser.device, denoiser.shape
    scheduler = Diffusion(denoiser.model).sampler(generation.sampler, generation.num_inference_steps)
    x = per_sample_noise(seeds, (shape.channels, shape.image_size, shape.image_size)).to(device)
    # Ancestral steps draw noise too: a generator per image, on the CPU, so that no batch and no device matters.
    draws = [torch.Generator().manual_seed(seed_for(seed, "ancestral-noise")) for seed in seeds]
    extra = {} if generation.sampler == "ddim" else {"generator": draws}
    condition = None if denoiser.null is None else torch.from_numpy(labels).to(device)
    last: deque[Tensor] = deque(maxlen=LAST_STEPS)
    with autocast(generation.precision, device):
        for t in scheduler.timesteps:
            predicted = predict(x, t.expand(len(x)).to(device), condition)
            step = scheduler.step(predicted.float(), t, x, **extra)
            x = step.prev_sample
            last.append(step.pred_original_sample)
    variance = torch.stack(list(last)).var(dim=0, correction=0).mean(dim=(1, 2, 3))
    return to_uint8(x).cpu().numpy(), variance.cpu().numpy()
