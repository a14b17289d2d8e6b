"""Latents: of an image, its noise and its timestep, and of nothing else; and how well the noise is predicted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autophagy.common.samples import UNLABELLED, sample_ids
from autophagy.denoisers.base import Denoiser
from autophagy.denoisers.latents import ENCODE_BATCH, ERROR_SHARES, Encoder
from autophagy.denoisers.philox import normals
from autophagy.denoisers.pixels import to_unit

IDS = sample_ids(0, 0, 5)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)


def encode(denoiser: Denoiser, images: np.ndarray, ids: np.ndarray, timestep: int = 10, **other: object) -> np.ndarray:
    return Encoder(denoiser).encode_batch(images, ids, timestep, **{"pool": "flatten", "seed": 0, **other})


def test_a_latent_does_not_depend_on_the_batch(denoiser, images):
    together = encode(denoiser, images, IDS)
    assert (together.dtype, together.shape) == (np.float32, (5, 16 * 4 * 4))
    rows = [3, 0, 4]
    np.testing.assert_allclose(encode(denoiser, images[rows], IDS[rows]), together[rows], atol=1e-5)
    np.testing.assert_allclose(encode(denoiser, images[:1], IDS[:1]), together[:1], atol=1e-5)


def test_any_number_of_images_is_encoded(denoiser, images):
    many, ids = images[np.arange(ENCODE_BATCH + 3) % 5], sample_ids(0, 0, ENCODE_BATCH + 3)
    encoded = Encoder(denoiser).encode(many, ids, 10, pool="mean", seed=0)
    for rows in (slice(2), slice(ENCODE_BATCH, None)):
        expected = encode(denoiser, many[rows], ids[rows], pool="mean")
        np.testing.assert_allclose(encoded[rows], expected, atol=1e-5)


def test_the_noise_is_fixed_by_sample_and_timestep(denoiser, images):
    same = images[[0, 0]]
    first = encode(denoiser, same, IDS[:2])
    np.testing.assert_array_equal(first, encode(denoiser, same, IDS[:2]))
    assert not np.allclose(first[0], first[1], atol=1e-3), "two samples share their noise"
    twice = encode(denoiser, same, IDS[[0, 0]])
    np.testing.assert_allclose(twice[0], twice[1], atol=1e-6)
    assert not np.allclose(first, encode(denoiser, same, IDS[:2], seed=1), atol=1e-3)


def test_at_another_timestep_the_noise_is_another(denoiser, images, monkeypatch):
    drawn: list[torch.Tensor] = []

    def recorded(*arguments: object) -> torch.Tensor:
        drawn.append(normals(*arguments))
        return drawn[-1]

    monkeypatch.setattr("autophagy.denoisers.latents.normals", recorded)
    encode(denoiser, images, IDS, timestep=10)
    encode(denoiser, images, IDS, timestep=11)
    assert len(torch.cat(drawn).unique(dim=0)) == 2 * len(IDS)


def test_nothing_in_a_latent_tells_the_label(built, images):
    """Only the null condition enters: the other class embeddings may be anything."""
    changed = built()
    before, weight = encode(changed, images, IDS), changed.network.class_embedding.weight
    with torch.no_grad():
        weight[:3] += 10
    np.testing.assert_array_equal(encode(changed, images, IDS), before)
    with torch.no_grad():
        weight[3] += 10
    assert not np.allclose(encode(changed, images, IDS), before)


def test_pooling_is_over_positions(denoiser, images):
    flat = encode(denoiser, images, IDS).reshape(5, 16, 4 * 4)
    np.testing.assert_allclose(encode(denoiser, images, IDS, pool="mean"), flat.mean(2), atol=1e-6)
    np.testing.assert_array_equal(encode(denoiser, images, IDS, pool="max"), flat.max(2))


class Oracle(Denoiser):
    """Knows the images, and therefore their noise; misses it by as much as the condition says."""

    def predict(self, x, t, condition):
        level = torch.linspace(0, 1, 100)[t].reshape(-1, 1, 1, 1)
        return x - level + condition.reshape(-1, 1, 1, 1)


def test_the_denoising_error_is_the_squared_miss_over_all_timesteps(denoiser, images, monkeypatch):
    encoder = Encoder(Oracle(denoiser.model, denoiser.network, denoiser.shape))
    seen: list[int] = []

    def noised(x0, noise, t):
        assert torch.equal(x0, to_unit(torch.from_numpy(images)))
        seen.append(int(t[0]))
        return noise + torch.linspace(0, 1, 100)[t].reshape(-1, 1, 1, 1)

    monkeypatch.setattr(encoder.diffusion, "noised", noised)
    error = encoder.denoising_error(images, IDS, np.array([0, 1, 2, UNLABELLED, 0]), seed=0)
    assert error.dtype == np.float32
    np.testing.assert_allclose(error, [0, 1, 4, 9, 0], atol=1e-5)  # unlabelled: the null condition, which is 3
    assert seen == [int(100 * share) for share in ERROR_SHARES]
