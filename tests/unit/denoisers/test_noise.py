"""Pixels in and out, noise by sample, and the precision that all is computed in."""

from __future__ import annotations

import pytest
import torch

from autophagy.denoisers.noise import per_sample_noise, to_uint8, to_unit
from autophagy.denoisers.precision import resolve_precision


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


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_precision_that_is_asked_for_is_used(precision, dtype):
    assert resolve_precision(precision, torch.device("cpu")) is dtype
    assert resolve_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
