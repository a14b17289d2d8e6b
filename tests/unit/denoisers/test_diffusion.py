"""The diffusion: how noisy an image is at a timestep, and what is predicted of it."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from autophagy.denoisers import UNet
from autophagy.denoisers.diffusion import Diffusion

NUM_STEPS, CPU = 50, torch.device("cpu")


def random(seed: int) -> torch.Tensor:
    return torch.randn((4, 1, 8, 8), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_images_drown_in_noise_as_the_schedule_of_the_model_says(beta_schedule):
    diffusion = Diffusion(UNet(num_train_timesteps=NUM_STEPS, beta_schedule=beta_schedule), CPU)
    kept = DDPMScheduler(num_train_timesteps=NUM_STEPS, beta_schedule=beta_schedule).alphas_cumprod
    assert (kept.diff() < 0).all()
    x0, noise, t = random(0), random(1), torch.tensor([0, 7, 30, NUM_STEPS - 1])
    share = kept[t].reshape(4, 1, 1, 1)
    torch.testing.assert_close(diffusion.noised(x0, noise, t), share.sqrt() * x0 + (1 - share).sqrt() * noise)
    assert diffusion.target(x0, noise, t) is noise
    with pytest.raises(IndexError):
        diffusion.noised(x0, noise, t + 1)


def test_timesteps_are_all_alike():
    diffusion = Diffusion(UNet(num_train_timesteps=NUM_STEPS), CPU)
    edges = torch.arange(NUM_STEPS, dtype=torch.float64) / NUM_STEPS
    assert diffusion.timesteps(edges + 1e-9).tolist() == list(range(NUM_STEPS))
    assert diffusion.timesteps(torch.tensor([2.0**-33, 1 - 2.0**-33], dtype=torch.float64)).tolist() == [0, 49]


def test_the_true_noise_gives_the_image_back_and_what_lies_outside_is_clipped():
    diffusion = Diffusion(UNet(num_train_timesteps=NUM_STEPS), CPU)
    x0, noise = random(0).clamp(-1, 1), random(1)
    for t in (0, 20, 49):
        x = diffusion.noised(x0, noise, torch.full((4,), t))
        torch.testing.assert_close(diffusion.denoised(x, noise, t), x0, atol=1e-5, rtol=0)
        assert diffusion.denoised(x, noise - 1000, t).unique().tolist() == [1]
