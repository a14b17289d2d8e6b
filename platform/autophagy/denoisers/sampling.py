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
from autophagy.denoisers.philox import normals
from autophagy.denoisers.pixels import to_uint8
from autophagy.denoisers.precision import autocast

LAST_STEPS = 10  # of sampling, whose predictions of x_0 are compared


@torch.inference_mode()
def sample_images(
    denoiser: Denoiser, predict: Predict, generation: Generation, labels: np.ndarray, ids: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sample by DDIM (arXiv 2010.02502) or ancestral DDPM (2006.11239).

    Args:
        denoiser: Whose images are made.
        predict: What predicts for it, see `guide`.
        generation: How.
        labels: int64 [B], the class asked for; of no meaning to an unconditional denoiser.
        ids: int64 [B]; image i depends on labels[i], ids[i] and the seed, whatever else is in the batch.
        seed: Of the noise.

    Returns:
        Images uint8 [B, H, W, C], and the variance of the predictions of x_0 over the last LAST_STEPS steps, mean
        over pixels, float32 [B]: what arXiv 2406.09358 tells hallucinated images by.
    """
    device, shape = denoiser.device, denoiser.shape
    pixels = (shape.channels, shape.image_size, shape.image_size)
    whose, diffusion = torch.from_numpy(ids).to(device), Diffusion(denoiser.model, device)
    condition = None if denoiser.null is None else torch.from_numpy(labels).to(device)
    x = normals(seed_for(seed, "start"), whose, 0, pixels)
    last: deque[Tensor] = deque(maxlen=LAST_STEPS)
    grid = timesteps(diffusion.num_train_timesteps, generation.num_inference_steps)
    with autocast(generation.precision, device):
        for t, following in zip(grid, [*grid[1:], None], strict=True):
            predicted = predict(x, torch.full_like(whose, t), condition).float()
            x0 = diffusion.denoised(x, predicted, t)
            last.append(x0)
            noise = None
            if generation.sampler == "ddpm" and following is not None:
                noise = normals(seed_for(seed, "ancestral"), whose, t, pixels)
            x = step(diffusion, x, x0, t, following, noise)
    variance = torch.stack(list(last)).var(dim=0, correction=0).mean(dim=(1, 2, 3))
    return to_uint8(x).cpu().numpy(), variance.cpu().numpy()


def timesteps(num_train_timesteps: int, num_steps: int) -> list[int]:
    """Evenly spaced timesteps, falling, both ends included: from pure noise to where next to none is left."""
    last = num_train_timesteps - 1
    if num_steps == 1:
        return [last]
    return [last * left // (num_steps - 1) for left in range(num_steps - 1, -1, -1)]


def step(diffusion: Diffusion, x: Tensor, x0: Tensor, t: int, following: int | None, noise: Tensor | None) -> Tensor:
    """From timestep t to the following one (2010.02502, eq. 12), or to x_0 if there is none.

    The noise in x is told from the prediction of x_0 as it was clipped: the two belong together.

    Args:
        diffusion: That of the timesteps.
        x: [B, C, H, W] at t.
        x0: Its prediction of x_0.
        t: Timestep.
        following: A smaller one.
        noise: Standard normal like x: an ancestral step (eta = 1, the posterior of DDPM); None: one of DDIM (eta = 0).
    """
    if following is None:
        return x0
    signal, sigma = diffusion.signal, diffusion.sigma
    own = (x - signal[t] * x0) / sigma[t]
    if noise is None:
        return signal[following] * x0 + sigma[following] * own
    fresh = sigma[following] / sigma[t] * (1 - (signal[t] / signal[following]) ** 2).sqrt()
    return signal[following] * x0 + (sigma[following] ** 2 - fresh**2).sqrt() * own + fresh * noise
