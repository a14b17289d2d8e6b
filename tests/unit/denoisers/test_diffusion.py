"""The diffusion: how noisy an image is at a timestep, what is predicted of it, and the way back."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from autophagy.denoisers import UNet
from autophagy.denoisers.diffusion import Diffusion

NUM_STEPS = 50


def random(seed: int) -> torch.Tensor:
    return torch.randn((4, 1, 8, 8), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_images_drown_in_noise_as_the_schedule_of_the_model_says(beta_schedule):
    diffusion = Diffusion(UNet(num_train_timesteps=NUM_STEPS, beta_schedule=beta_schedule))
    kept = DDPMScheduler(num_train_timesteps=NUM_STEPS, beta_schedule=beta_schedule).alphas_cumprod
    assert (kept.diff() < 0).all()
    x0, noise, t = random(0), random(1), torch.tensor([0, 7, 30, NUM_STEPS - 1])
    share = kept[t].reshape(4, 1, 1, 1)
    torch.testing.assert_close(diffusion.noised(x0, noise, t), share.sqrt() * x0 + (1 - share).sqrt() * noise)
    assert diffusion.target(x0, noise, t) is noise
    with pytest.raises(IndexError):
        diffusion.noised(x0, noise, t + 1)


def test_timesteps_are_all_alike_and_hang_on_the_generator_alone():
    diffusion = Diffusion(UNet(num_train_timesteps=NUM_STEPS))
    drawn = diffusion.draw(5000, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64
    counts = torch.bincount(drawn, minlength=NUM_STEPS)
    assert len(counts) == NUM_STEPS
    assert (counts > 50).all()
    assert torch.equal(diffusion.draw(5000, torch.Generator().manual_seed(0)), drawn)


@pytest.mark.parametrize(("kind", "scheduler"), [("ddim", DDIMScheduler), ("ddpm", DDPMScheduler)])
@pytest.mark.parametrize("num_steps", [5, NUM_STEPS])
def test_the_way_back_is_that_of_diffusers(kind, scheduler, num_steps):
    model = UNet(num_train_timesteps=NUM_STEPS, beta_schedule="scaled_linear")
    sampler, plain = Diffusion(model).sampler(kind, num_steps), scheduler(NUM_STEPS, beta_schedule="scaled_linear")
    plain.set_timesteps(num_steps)
    assert torch.equal(sampler.timesteps, plain.timesteps)
    assert len(sampler.timesteps) == num_steps
    x = other = random(2)
    for t in plain.timesteps:
        generators = [torch.Generator().manual_seed(3) for _ in range(2)]
        x = sampler.step(random(int(t)), t, x, generator=generators[0]).prev_sample
        other = plain.step(random(int(t)), t, other, generator=generators[1]).prev_sample
    assert torch.equal(x, other)
