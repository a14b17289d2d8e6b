"""Sampling: an image depends on its label and its seed, whatever else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autophagy.common.samples import UNLABELLED
from autophagy.denoisers.config import Generation, Model
from autophagy.denoisers.guidance import Denoisers
from autophagy.denoisers.sampling import LAST_STEPS, sample_images
from autophagy.denoisers.unet import build_denoiser

MODEL = Model(block_out_channels=(8, 16), num_train_timesteps=100)
LABELS = np.array([0, 1, 2, 0, 1, 2])
SEEDS = [11, 12, 13, 14, 15, 16]


@pytest.fixture(scope="module")
def denoiser() -> nn.Module:
    """Untrained: its images are noise, but noise that hangs together."""
    torch.manual_seed(0)
    return build_denoiser(MODEL, 8, 1, 3).eval()


def generation(**fields: object) -> Generation:
    return Generation.model_validate({"num_inference_steps": 4, "precision": "float32", **fields})


def drawn(
    denoiser: nn.Module, labels: np.ndarray = LABELS, seeds: list[int] = SEEDS, model: Model = MODEL, **fields: object
) -> Tensor:
    return sample_images(Denoisers(denoiser), model, generation(**fields), labels, seeds)[0]


def differ(a: Tensor, b: Tensor) -> int:
    """Largest difference of two images, in grey levels: rounding may turn a last digit into one."""
    return int((a.int() - b.int()).abs().max())


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
class TestBothSamplers:
    def test_images_repeat(self, denoiser, sampler):
        first = drawn(denoiser, sampler=sampler)
        assert (first.dtype, first.shape) == (torch.uint8, (6, 8, 8, 1))
        torch.manual_seed(99)
        assert torch.equal(drawn(denoiser, sampler=sampler), first)
        assert first.float().std() > 10

    def test_an_image_does_not_depend_on_its_batch(self, denoiser, sampler):
        whole = drawn(denoiser, sampler=sampler)
        rows = [4, 1, 3]
        some = drawn(denoiser, LABELS[rows], [SEEDS[i] for i in rows], sampler=sampler)
        assert differ(some, whole[rows]) <= 1
        alone = [drawn(denoiser, LABELS[[i]], [SEEDS[i]], sampler=sampler) for i in range(6)]
        assert differ(torch.cat(alone), whole) <= 1

    def test_seed_and_label_both_matter(self, denoiser, sampler):
        same_seed = drawn(denoiser, np.array([0, 1]), [5, 5], sampler=sampler)
        same_label = drawn(denoiser, np.array([0, 0]), [5, 6], sampler=sampler)
        assert differ(same_label[0], same_label[1]) > 20
        assert differ(same_seed[0], same_seed[1]) > 0

    def test_leaves_the_global_generator_alone(self, denoiser, sampler):
        before = torch.get_rng_state()
        drawn(denoiser, sampler=sampler)
        assert torch.equal(torch.get_rng_state(), before)


def test_ancestral_sampling_draws_noise_on_its_way(denoiser):
    """From the same start DDIM is deterministic, DDPM is not: their images part."""
    assert differ(drawn(denoiser, sampler="ddim"), drawn(denoiser, sampler="ddpm")) > 20


def test_guidance_of_one_is_no_guidance(denoiser):
    plain = drawn(denoiser)
    assert differ(drawn(denoiser, guidance_scale=1.0), plain) <= 1
    assert differ(drawn(denoiser, guidance_scale=5.0), plain) > 1


def test_guidance_of_zero_ignores_the_label(denoiser):
    free = drawn(denoiser, np.array([0, 1, 2]), [7, 7, 7], guidance_scale=0.0)
    assert differ(free[0], free[1]) <= 1
    assert differ(free[0], free[2]) <= 1


def test_an_unconditional_denoiser_needs_no_labels():
    model = Model(block_out_channels=(8, 16), num_train_timesteps=100, conditional=False)
    torch.manual_seed(0)
    denoiser = build_denoiser(model, 8, 3, 10).eval()
    images = drawn(denoiser, np.full(2, UNLABELLED), [1, 2], model)
    assert images.shape == (2, 8, 8, 3)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_as_many_steps_as_there_are_timesteps(denoiser, sampler):
    short = MODEL.model_copy(update={"num_train_timesteps": 10})
    images = drawn(denoiser, LABELS[:2], SEEDS[:2], short, num_inference_steps=10, sampler=sampler)
    assert images.shape == (2, 8, 8, 1)


def test_extrapolation_moves_away_from_the_auxiliary_denoiser(denoiser):
    torch.manual_seed(5)
    other = build_denoiser(MODEL, 8, 1, 3).eval()

    def moved(auxiliary: nn.Module, weight: float) -> Tensor:
        return sample_images(Denoisers(denoiser, auxiliary, weight), MODEL, generation(), LABELS, SEEDS)[0]

    plain = drawn(denoiser)
    assert differ(moved(denoiser, 3.0), plain) <= 1  # (1 + w) eps - w eps = eps
    assert differ(moved(other, 0.0), plain) == 0
    assert differ(moved(other, 1.0), plain) > 1


def test_trajectory_variance_is_that_of_the_last_predictions(denoiser):
    from diffusers import DDIMScheduler

    config = generation(num_inference_steps=LAST_STEPS + 3)
    variance = sample_images(Denoisers(denoiser), MODEL, config, LABELS, SEEDS)[1]
    assert (variance.shape, variance.dtype) == ((6,), torch.float32)

    scheduler = DDIMScheduler(num_train_timesteps=100, beta_schedule=MODEL.beta_schedule)
    scheduler.set_timesteps(LAST_STEPS + 3)
    x = torch.randn((1, 1, 8, 8), generator=torch.Generator().manual_seed(SEEDS[2]))
    seen = []
    with torch.no_grad():
        for t in scheduler.timesteps:
            step = scheduler.step(denoiser(x, t, torch.from_numpy(LABELS[[2]])).sample, t, x)
            x = step.prev_sample
            seen.append(step.pred_original_sample.numpy().ravel().astype(np.float64))
    expected = np.var(np.array(seen[-LAST_STEPS:]), axis=0).mean()
    assert float(variance[2]) == pytest.approx(expected, rel=1e-3)
    assert len(set(variance.tolist())) == 6
