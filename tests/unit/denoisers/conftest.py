"""Denoisers to try things with: untrained, so that their images are noise, but noise that hangs together."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from autophagy.denoisers import Model, UNet
from autophagy.denoisers.base import Denoiser, Shape
from autophagy.denoisers.weights import new_denoiser

SHAPE = Shape(image_size=8, channels=1, num_classes=3)


@pytest.fixture(scope="session")
def built() -> Callable[..., Denoiser]:
    """Makes one, in the state in which it generates."""

    def build(model: Model | None = None, shape: Shape = SHAPE, seed: int = 0, **fields: object) -> Denoiser:
        fields = {"block_out_channels": (8, 16), "num_train_timesteps": 100, **fields}
        made = new_denoiser(model or UNet.model_validate(fields), shape, seed)
        made.network.eval()
        return made

    return build


@pytest.fixture(scope="session")
def denoiser(built) -> Denoiser:
    """A small one for grey 8x8 images of three classes."""
    return built()
