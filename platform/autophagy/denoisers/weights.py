"""Networks that are made, or read back from their weights."""

from __future__ import annotations

import torch
from safetensors.torch import load

from autophagy.common.seeds import seed_for
from autophagy.denoisers.base import Denoiser, Model, Shape


def new_denoiser(model: Model, shape: Shape, seed: int, use_gpu: bool = False) -> Denoiser:
    """An untrained denoiser, whose weights hang on the seed alone."""
    torch.manual_seed(seed_for(seed, "initial-weights"))
    return Denoiser(model, model.build(shape).to(device_of(use_gpu)), shape)


def trained_denoiser(model: Model, shape: Shape, weights: bytes, use_gpu: bool = False) -> Denoiser:
    """The denoiser of these weights (safetensors), ready to generate."""
    network = model.build(shape)
    network.load_state_dict(load(weights))
    return Denoiser(model, network.to(device_of(use_gpu)).eval(), shape)


def device_of(use_gpu: bool) -> torch.device:
    """Where networks run."""
    return torch.device("cuda" if use_gpu else "cpu")
