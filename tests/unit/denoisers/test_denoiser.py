"""The denoiser: pixels in and out, noise by sample, and the latents of its bottleneck."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autophagy.common.samples import sample_ids
from autophagy.denoisers.config import Model
from autophagy.denoisers.diffusion import noise_schedule
from autophagy.denoisers.latents import latents
from autophagy.denoisers.noise import null_condition, per_sample_noise, to_uint8, to_unit
from autophagy.denoisers.precision import resolve_precision
from autophagy.denoisers.unet import bottleneck, build_denoiser

SMALL = Model(block_out_channels=(8, 16), num_train_timesteps=100)
IDS = sample_ids(0, 0, 5)


def built(model: Model = SMALL, size: int = 8, channels: int = 1, num_classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return build_denoiser(model, size, channels, num_classes).eval()


@pytest.fixture(scope="module")
def denoiser() -> nn.Module:
    return built()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8))


def encode(denoiser: nn.Module, images: Tensor, ids: np.ndarray, timestep: int = 10, pool: str = "flatten") -> Tensor:
    return latents(denoiser, noise_schedule(SMALL), images, ids, timestep, pool=pool, seed=0)


class TestPixels:
    def test_every_value_comes_back(self):
        images = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(2, 1, 1, 3)
        unit = to_unit(images)
        assert unit.shape == (2, 3, 16, 16)
        assert (unit.min(), unit.max()) == (-1, 1)
        assert torch.equal(to_uint8(unit), images)

    def test_channels_and_positions_stay_apart(self):
        images = torch.randint(256, (2, 4, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        assert to_unit(images)[1, 2, 3, 4] == pytest.approx(float(images[1, 3, 4, 2]) / 127.5 - 1, abs=1e-6)
        assert torch.equal(to_uint8(to_unit(images)), images)

    def test_values_are_rounded_and_clipped(self):
        unit = torch.tensor([-3.0, -1.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 1.0, 7.0]).reshape(1, 1, 1, 6)
        assert to_uint8(unit).flatten().tolist() == [0, 0, 0, 1, 255, 255]
        assert to_uint8(unit.bfloat16()).dtype == torch.uint8


class TestNoise:
    def test_a_row_depends_on_its_seed_alone(self):
        noise = per_sample_noise([3, 5, 3, 2**62], (2, 4, 4))
        assert noise.shape == (4, 2, 4, 4)
        assert torch.equal(noise[0], noise[2])
        assert torch.equal(per_sample_noise([2**62, 5], (2, 4, 4)), noise[[3, 1]])
        assert not torch.isclose(noise[0], noise[1]).any()

    def test_leaves_the_global_generator_alone(self):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        per_sample_noise([1, 2], (4,))
        assert torch.equal(torch.get_rng_state(), before)

    def test_is_standard_normal(self):
        noise = per_sample_noise(list(range(200)), (100,))
        assert noise.mean() == pytest.approx(0, abs=0.03)
        assert noise.std() == pytest.approx(1, abs=0.03)


class TestBuild:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize(
        "model",
        [
            SMALL,
            Model(block_out_channels=(8,)),
            Model(block_out_channels=(12, 20), layers_per_block=2),  # not divisible by 8
            Model(block_out_channels=(8, 16), attention=True),
            Model(block_out_channels=(8, 4), attention=True),  # narrower than an attention head
            Model(block_out_channels=(8, 8, 16), attention=True, conditional=False),
        ],
        ids=["two levels", "one level", "odd widths", "attention", "narrow attention", "unconditional"],
    )
    def test_predicts_noise_of_the_images_shape(self, model, channels):
        denoiser = built(model, 8, channels)
        x, t = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 50])
        condition = torch.tensor([0, 3]) if model.conditional else None
        with torch.no_grad():
            predicted = denoiser(x, t, condition).sample
        assert predicted.shape == x.shape
        assert torch.isfinite(predicted).all()
        assert null_condition(denoiser) == (3 if model.conditional else None)
        has_attention = any(name.endswith("to_q") for name, _ in denoiser.named_modules())
        assert has_attention == model.attention

    def test_attention_is_at_the_lowest_resolution_only(self):
        denoiser = built(Model(block_out_channels=(8, 16), attention=True))
        down = [hasattr(block, "attentions") for block in denoiser.down_blocks]
        up = [hasattr(block, "attentions") for block in denoiser.up_blocks]
        assert (down, up) == ([False, True], [True, False])

    def test_one_more_condition_than_classes_and_each_matters(self, denoiser):
        x, t = torch.zeros(4, 1, 8, 8), torch.full((4,), 10)
        with torch.no_grad():
            predicted = denoiser(x, t, torch.arange(4)).sample.flatten(1)
            with pytest.raises(IndexError):
                denoiser(x[:1], t[:1], torch.tensor([4]))
        assert (torch.cdist(predicted, predicted) + torch.eye(4) > 1e-4).all()

    def test_the_schedule_has_the_steps_of_the_model(self):
        schedule = noise_schedule(Model(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2"))
        assert len(schedule.alphas_cumprod) == 50
        assert (schedule.alphas_cumprod.diff() < 0).all()


class TestLatents:
    @pytest.mark.parametrize(
        "model",
        [
            SMALL,
            Model(block_out_channels=(8, 16), attention=True, layers_per_block=2, num_train_timesteps=100),
            Model(block_out_channels=(12, 20), conditional=False, num_train_timesteps=100),
        ],
        ids=["plain", "attention", "unconditional"],
    )
    def test_the_bottleneck_is_the_mid_block_of_a_forward_pass(self, model):
        denoiser = built(model)
        seen: list[Tensor] = []
        handle = denoiser.mid_block.register_forward_hook(lambda *call: seen.append(call[2]))
        x, timestep = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)), 42
        null = null_condition(denoiser)
        with torch.no_grad():
            denoiser(x, timestep, None if null is None else torch.full((3,), null))
        handle.remove()
        hidden = bottleneck(denoiser, x, timestep)
        assert torch.allclose(hidden, seen[0], atol=1e-6)
        size = 8 // 2 ** (len(model.block_out_channels) - 1)
        assert hidden.shape == (3, model.block_out_channels[-1], size, size)

    def test_a_latent_does_not_depend_on_the_batch(self, denoiser, images):
        together = encode(denoiser, images, IDS)
        assert together.dtype == torch.float32
        assert together.shape == (5, 16 * 4 * 4)
        shuffled = torch.tensor([3, 0, 4])
        assert torch.allclose(encode(denoiser, images[shuffled], IDS[shuffled.numpy()]), together[shuffled], atol=1e-5)
        assert torch.allclose(encode(denoiser, images[:1], IDS[:1]), together[:1], atol=1e-5)

    def test_the_noise_is_fixed_by_sample_and_timestep(self, denoiser, images):
        same = images[:1].repeat(2, 1, 1, 1)
        first = encode(denoiser, same, IDS[:2])
        assert torch.equal(first, encode(denoiser, same, IDS[:2]))
        assert not torch.allclose(first[0], first[1], atol=1e-3), "two samples share their noise"
        twice = encode(denoiser, same, IDS[[0, 0]])
        assert torch.allclose(twice[0], twice[1], atol=1e-6)
        other_seed = latents(denoiser, noise_schedule(SMALL), same, IDS[:2], 10, pool="flatten", seed=1)
        assert not torch.allclose(first, other_seed, atol=1e-3)

    def test_at_another_timestep_the_noise_is_another(self, denoiser, images, monkeypatch):
        drawn: list[list[int]] = []

        def recorded(seeds: list[int], shape: tuple[int, ...]) -> Tensor:
            drawn.append(seeds)
            return per_sample_noise(seeds, shape)

        monkeypatch.setattr("autophagy.denoisers.latents.per_sample_noise", recorded)
        encode(denoiser, images, IDS, timestep=10)
        encode(denoiser, images, IDS, timestep=11)
        assert len(set(drawn[0] + drawn[1])) == 2 * len(IDS)

    def test_nothing_in_a_latent_tells_the_label(self, denoiser, images):
        """Only the null condition enters: the other class embeddings may be anything."""
        before = encode(denoiser, images, IDS)
        changed = built()
        with torch.no_grad():
            changed.class_embedding.weight[:3] += 10
        assert torch.equal(encode(changed, images, IDS), before)
        with torch.no_grad():
            changed.class_embedding.weight[3] += 10
        assert not torch.allclose(encode(changed, images, IDS), before)

    def test_pooling_is_over_positions(self, denoiser, images):
        flat = encode(denoiser, images, IDS).reshape(5, 16, 4 * 4)
        assert torch.allclose(encode(denoiser, images, IDS, pool="mean"), flat.mean(2), atol=1e-6)
        assert torch.equal(encode(denoiser, images, IDS, pool="max"), flat.amax(2))


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_precision_that_is_asked_for_is_used(precision, dtype):
    assert resolve_precision(precision, torch.device("cpu")) is dtype
    assert resolve_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
