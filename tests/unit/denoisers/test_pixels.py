"""Pixels in and out."""

from __future__ import annotations

import pytest
import torch

from autophagy.denoisers.pixels import to_uint8, to_unit


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
