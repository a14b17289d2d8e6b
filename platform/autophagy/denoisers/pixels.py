"""Pixels as a denoiser sees them."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit(images: Tensor) -> Tensor:
    """uint8 [B, H, W, C] in 0..255 -> float32 [B, C, H, W] in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def to_uint8(images: Tensor) -> Tensor:
    """float [B, C, H, W] -> uint8 [B, H, W, C], rounded: the quantisation between generations is part of the loop."""
    return images.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
