"""What a denoiser knows of an image: latents of its encoder, and how well it predicts the noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autophagy.common.seeds import seed_for
from autophagy.denoisers.base import Denoiser
from autophagy.denoisers.diffusion import Diffusion
from autophagy.denoisers.philox import normals
from autophagy.denoisers.pixels import to_unit

ERROR_SHARES = (0.05, 0.15, 0.3, 0.45, 0.6, 0.8)  # of num_train_timesteps: where the denoising error is taken
ENCODE_BATCH = 256


class Encoder:
    """A denoiser as what images are looked at through."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.diffusion = denoiser, Diffusion(denoiser.model, denoiser.device)

    def encode(self, images: np.ndarray, sample_id: np.ndarray, timestep: int, *, pool: str, seed: int) -> np.ndarray:
        """`encode_batch` of any number of images, a few at a time."""
        parts = [slice(start, start + ENCODE_BATCH) for start in range(0, len(images), ENCODE_BATCH)]
        encoded = [self.encode_batch(images[p], sample_id[p], timestep, pool=pool, seed=seed) for p in parts]
        return np.concatenate(encoded)

    @torch.inference_mode()
    def encode_batch(
        self, images: np.ndarray, sample_id: np.ndarray, timestep: int, *, pool: str, seed: int
    ) -> np.ndarray:
        """Latents float32 [B, L]: images diffused to a timestep, encoded, pooled over positions (LSF, section 3).

        The noise is fixed per (sample, timestep): the same image has the same latent in every generation and batch.

        Args:
            images: uint8 [B, H, W, C].
            sample_id: int64 [B].
            timestep: In 0 .. num_train_timesteps - 1.
            pool: `mean`, `max` or `flatten`.
            seed: Of the noise.
        """
        x0, noise, t = self._at(images, sample_id, timestep, seed_for(seed, "latent-noise"))
        hidden = self.denoiser.encode(self.diffusion.noised(x0, noise, t), t).float()
        if pool == "mean":
            hidden = hidden.mean(dim=(2, 3))
        elif pool == "max":
            hidden = hidden.amax(dim=(2, 3))
        return hidden.flatten(1).cpu().numpy()

    @torch.inference_mode()
    def denoising_error(self, images: np.ndarray, sample_id: np.ndarray, label: np.ndarray, *, seed: int) -> np.ndarray:
        """Mean squared error of the prediction over ERROR_SHARES of the timesteps, float32 [B].

        The simplified bound of the negative log-likelihood (DDPM, eq. 14) up to scale: low error, high likelihood.

        Args:
            images: uint8 [B, H, W, C].
            sample_id: int64 [B]; the noise is fixed per (sample, timestep).
            label: int64 [B], the condition; UNLABELLED is the null condition.
            seed: Of the noise.
        """
        null = self.denoiser.null
        told = torch.from_numpy(label).to(self.denoiser.device)
        condition = None if null is None else torch.where(told < 0, null, told)
        errors = []
        for share in ERROR_SHARES:
            timestep = int(share * self.diffusion.num_train_timesteps)
            x0, noise, t = self._at(images, sample_id, timestep, seed_for(seed, "error-noise"))
            predicted = self.denoiser.predict(self.diffusion.noised(x0, noise, t), t, condition)
            errors.append((predicted - self.diffusion.target(x0, noise, t)).square().mean(dim=(1, 2, 3)))
        return torch.stack(errors).mean(dim=0).cpu().numpy()

    def _at(self, images: np.ndarray, sample_id: np.ndarray, timestep: int, key: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images x_0, their noise at a timestep, and the timesteps, on the denoiser's device."""
        device = self.denoiser.device
        x0 = to_unit(torch.from_numpy(np.array(images)).to(device))
        ids = torch.from_numpy(np.array(sample_id)).to(device)
        return x0, normals(key, ids, timestep, tuple(x0.shape[1:])), torch.full_like(ids, timestep)
