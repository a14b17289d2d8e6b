"""Sampling: an image depends on its label and its id, whatever else is in the batch; and Gaussians come out right."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from autophagy.common.samples import UNLABELLED, sample_ids
from autophagy.common.seeds import seed_for
from autophagy.denoisers import UNet
from autophagy.denoisers.base import Denoiser, Shape
from autophagy.denoisers.config import Generation
from autophagy.denoisers.diffusion import Diffusion
from autophagy.denoisers.guidance import guide
from autophagy.denoisers.philox import normals
from autophagy.denoisers.sampling import LAST_STEPS, sample_images, step, timesteps

LABELS = np.array([0, 1, 2, 0, 1, 2])
IDS = sample_ids(3, 11, 6)
CPU = torch.device("cpu")


def sampled(
    denoiser: Denoiser, labels: np.ndarray = LABELS, ids: np.ndarray = IDS, seed: int = 1, **fields: object
) -> tuple[np.ndarray, np.ndarray]:
    generation = Generation.model_validate({"num_inference_steps": 4, "precision": "float32", **fields})
    predict = guide(denoiser, generation.guidance_scale, None, 0.0)
    return sample_images(denoiser, predict, generation, labels, ids, seed)


def drawn(*arguments: object, **fields: object) -> np.ndarray:
    return sampled(*arguments, **fields)[0]


def differ(a: np.ndarray, b: np.ndarray) -> int:
    """Largest difference of two images, in grey levels: rounding may turn a last digit into one."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
class TestBothSamplers:
    def test_images_repeat(self, denoiser, sampler):
        first = drawn(denoiser, sampler=sampler)
        assert (first.dtype, first.shape) == (np.uint8, (6, 8, 8, 1))
        torch.manual_seed(99)
        np.testing.assert_array_equal(drawn(denoiser, sampler=sampler), first)
        assert first.std() > 10

    def test_an_image_does_not_depend_on_its_batch(self, denoiser, sampler):
        whole = drawn(denoiser, sampler=sampler)
        rows = [4, 1, 3]
        assert differ(drawn(denoiser, LABELS[rows], IDS[rows], sampler=sampler), whole[rows]) <= 1
        alone = [drawn(denoiser, LABELS[[i]], IDS[[i]], sampler=sampler) for i in range(6)]
        assert differ(np.concatenate(alone), whole) <= 1

    def test_seed_id_and_label_all_matter(self, denoiser, sampler):
        same_id = drawn(denoiser, np.array([0, 1]), IDS[[0, 0]], sampler=sampler)
        same_label = drawn(denoiser, np.array([0, 0]), IDS[:2], sampler=sampler)
        assert differ(same_label[0], same_label[1]) > 20
        assert differ(same_id[0], same_id[1]) > 0
        assert differ(drawn(denoiser, LABELS[:1], IDS[:1], seed=2, sampler=sampler)[0], same_label[0]) > 20

    def test_leaves_the_global_generator_alone(self, denoiser, sampler):
        before = torch.get_rng_state()
        drawn(denoiser, sampler=sampler)
        assert torch.equal(torch.get_rng_state(), before)

    def test_as_many_steps_as_there_are_timesteps(self, denoiser, sampler):
        model = denoiser.model.model_copy(update={"num_train_timesteps": 10})
        short = dataclasses.replace(denoiser, model=model)
        images = drawn(short, LABELS[:2], IDS[:2], num_inference_steps=10, sampler=sampler)
        assert images.shape == (2, 8, 8, 1)


def test_ancestral_sampling_draws_noise_on_its_way(denoiser):
    """From the same start DDIM is deterministic, DDPM is not: their images part."""
    assert differ(drawn(denoiser, sampler="ddim"), drawn(denoiser, sampler="ddpm")) > 20


def test_guidance_of_one_is_no_guidance(denoiser):
    plain = drawn(denoiser)
    assert differ(drawn(denoiser, guidance_scale=1.0), plain) <= 1
    assert differ(drawn(denoiser, guidance_scale=5.0), plain) > 1


def test_an_unconditional_denoiser_needs_no_labels(built):
    denoiser = built(shape=Shape(8, 3, 10), conditional=False)
    assert drawn(denoiser, np.full(2, UNLABELLED), IDS[:2]).shape == (2, 8, 8, 3)


def test_trajectory_variance_is_that_of_the_last_predictions(denoiser):
    variance = sampled(denoiser, num_inference_steps=2 * LAST_STEPS)[1]
    assert (variance.shape, variance.dtype) == ((6,), np.float32)
    diffusion, grid = Diffusion(denoiser.model, CPU), timesteps(100, 2 * LAST_STEPS)
    x = normals(seed_for(1, "start"), torch.from_numpy(IDS[[2]]), 0, (1, 8, 8))
    seen = []
    with torch.no_grad():
        for t, following in zip(grid, [*grid[1:], None], strict=True):
            x0 = diffusion.denoised(x, denoiser.predict(x, torch.tensor([t]), torch.from_numpy(LABELS[[2]])), t)
            x = step(diffusion, x, x0, t, following, None)
            seen.append(x0.numpy().ravel().astype(np.float64))
    expected = np.var(np.array(seen[-LAST_STEPS:]), axis=0).mean()
    assert float(variance[2]) == pytest.approx(expected, rel=1e-3)
    assert len(set(variance.tolist())) == 6


def random(seed: int) -> torch.Tensor:
    return torch.randn((2, 1, 4, 4), generator=torch.Generator().manual_seed(seed))


class TestSteps:
    """One step of each kind, against diffusers' and against what is known of Gaussians."""

    @pytest.mark.parametrize("num_steps", [1, 2, 5, 25, 50, 1000])
    def test_the_grid_is_even_from_the_last_timestep_to_the_first(self, num_steps):
        grid = timesteps(1000, num_steps)
        assert len(set(grid)) == num_steps
        assert grid[0] == 999
        assert num_steps == 1 or grid[-1] == 0
        gaps = np.diff(grid[::-1])
        assert num_steps == 1 or gaps.max() - gaps.min() <= 1

    @pytest.mark.parametrize(("t", "following", "num_steps"), [(49, 39, 5), (20, 19, 50), (9, None, 5)])
    def test_a_step_of_ddim_is_that_of_diffusers_with_the_noise_told_from_what_was_clipped(
        self, t, following, num_steps
    ):
        diffusion, scheduler = Diffusion(UNet(num_train_timesteps=50), CPU), DDIMScheduler(50)
        scheduler.set_timesteps(num_steps)
        x, predicted = random(0), random(1)
        expected = scheduler.step(predicted, t, x, use_clipped_model_output=True)
        x0 = diffusion.denoised(x, predicted, t)
        torch.testing.assert_close(x0, expected.pred_original_sample)
        torch.testing.assert_close(step(diffusion, x, x0, t, following, None), expected.prev_sample)

    def test_an_ancestral_step_is_a_draw_of_the_posterior_of_ddpm(self):
        diffusion, scheduler = Diffusion(UNet(num_train_timesteps=50), CPU), DDPMScheduler(50)
        x, predicted, noise = random(0), random(1), random(2)
        made = step(diffusion, x, diffusion.denoised(x, predicted, 30), 30, 29, noise)
        without = step(diffusion, x, diffusion.denoised(x, predicted, 30), 30, 29, torch.zeros_like(noise))
        fresh = ((made - without) / noise).mean()
        assert float(fresh**2) == pytest.approx(float(scheduler._get_variance(30)), rel=1e-4)
        mean = scheduler.step(predicted, 30, x, generator=torch.Generator().manual_seed(0)).prev_sample
        mean -= scheduler._get_variance(30).sqrt() * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(without, mean, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("variance", [1.0, 0.1, 0.01])
    @pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
    def test_of_a_gaussian_as_much_variance_comes_back_as_the_coarseness_of_the_grid_leaves(self, sampler, variance):
        """The best prediction of images N(0, v) is linear. With 25 steps much is lost, with 1,000 next to nothing."""
        shares = [share_that_comes_back(sampler, num_steps, variance) for num_steps in (10, 25, 100, 1000)]
        expected = {
            ("ddim", 1.0): [0.664, 0.859, 0.964, 0.996],
            ("ddim", 0.1): [0.380, 0.706, 0.919, 0.991],
            ("ddim", 0.01): [0.118, 0.367, 0.780, 0.967],
            ("ddpm", 1.0): [0.521, 0.747, 0.921, 0.991],
            ("ddpm", 0.1): [0.311, 0.567, 0.828, 0.976],
            ("ddpm", 0.01): [0.072, 0.269, 0.629, 0.928],
        }
        assert shares == pytest.approx(expected[sampler, variance], abs=0.03)


def share_that_comes_back(sampler: str, num_steps: int, variance: float) -> float:
    """Variance of samples by an exact denoiser, over that of the images."""
    diffusion, count = Diffusion(UNet(), CPU), 20_000
    ids, grid = torch.arange(count), timesteps(1000, num_steps)
    x = normals(0, ids, 0, (1, 1, 1))
    for t, following in zip(grid, [*grid[1:], None], strict=True):
        signal, sigma = diffusion.signal[t], diffusion.sigma[t]
        x0 = x * signal * variance / (signal**2 * variance + sigma**2)  # E[x_0 | x], which nothing has to clip
        fresh = normals(1, ids, t, (1, 1, 1)) if sampler == "ddpm" and following is not None else None
        x = step(diffusion, x, x0, t, following, fresh)
    assert float(x.mean()) == pytest.approx(0, abs=5 * (variance / count) ** 0.5)
    return float(x.double().var()) / variance
