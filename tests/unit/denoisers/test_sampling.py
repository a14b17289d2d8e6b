"""Sampling: an image depends on its label and its seed, whatever else is in the batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from autophagy.common.samples import UNLABELLED
from autophagy.denoisers.base import Denoiser, Shape
from autophagy.denoisers.config import Generation
from autophagy.denoisers.diffusion import Diffusion
from autophagy.denoisers.guidance import guide
from autophagy.denoisers.sampling import LAST_STEPS, sample_images

LABELS = np.array([0, 1, 2, 0, 1, 2])
SEEDS = [11, 12, 13, 14, 15, 16]


def sampled(
    denoiser: Denoiser, labels: np.ndarray = LABELS, seeds: list[int] = SEEDS, **fields: object
) -> tuple[np.ndarray, np.ndarray]:
    generation = Generation.model_validate({"num_inference_steps": 4, "precision": "float32", **fields})
    predict = guide(denoiser, generation.guidance_scale, None, 0.0)
    return sample_images(denoiser, predict, generation, labels, seeds)


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
        some = drawn(denoiser, LABELS[rows], [SEEDS[i] for i in rows], sampler=sampler)
        assert differ(some, whole[rows]) <= 1
        alone = [drawn(denoiser, LABELS[[i]], [SEEDS[i]], sampler=sampler) for i in range(6)]
        assert differ(np.concatenate(alone), whole) <= 1

    def test_seed_and_label_both_matter(self, denoiser, sampler):
        same_seed = drawn(denoiser, np.array([0, 1]), [5, 5], sampler=sampler)
        same_label = drawn(denoiser, np.array([0, 0]), [5, 6], sampler=sampler)
        assert differ(same_label[0], same_label[1]) > 20
        assert differ(same_seed[0], same_seed[1]) > 0

    def test_leaves_the_global_generator_alone(self, denoiser, sampler):
        before = torch.get_rng_state()
        drawn(denoiser, sampler=sampler)
        assert torch.equal(torch.get_rng_state(), before)

    def test_as_many_steps_as_there_are_timesteps(self, denoiser, sampler):
        model = denoiser.model.model_copy(update={"num_train_timesteps": 10})
        short = dataclasses.replace(denoiser, model=model)
        images = drawn(short, LABELS[:2], SEEDS[:2], num_inference_steps=10, sampler=sampler)
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
    assert drawn(denoiser, np.full(2, UNLABELLED), [1, 2]).shape == (2, 8, 8, 3)


def test_trajectory_variance_is_that_of_the_last_predictions(denoiser):
    variance = sampled(denoiser, num_inference_steps=LAST_STEPS + 3)[1]
    assert (variance.shape, variance.dtype) == ((6,), np.float32)
    scheduler = Diffusion(denoiser.model).sampler("ddim", LAST_STEPS + 3)
    x = torch.randn((1, 1, 8, 8), generator=torch.Generator().manual_seed(SEEDS[2]))
    seen = []
    with torch.no_grad():
        for t in scheduler.timesteps:
            step = scheduler.step(denoiser.predict(x, t[None], torch.from_numpy(LABELS[[2]])), t, x)
            x = step.prev_sample
            seen.append(step.pred_original_sample.numpy().ravel().astype(np.float64))
    expected = np.var(np.array(seen[-LAST_STEPS:]), axis=0).mean()
    assert float(variance[2]) == pytest.approx(expected, rel=1e-3)
    assert len(set(variance.tolist())) == 6
