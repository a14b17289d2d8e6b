"""The U-Net of diffusers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from autophagy.denoisers.config import Model
from autophagy.denoisers.noise import null_condition

if TYPE_CHECKING:
    from diffusers import UNet2DModel


def build_denoiser(model: Model, image_size: int, channels: int, num_classes: int) -> UNet2DModel:
    """An untrained noise predictor for images [B, channels, image_size, image_size].

    A conditional one has `num_classes + 1` conditions; the last is the null condition of classifier-free guidance.
    """
    from diffusers import UNet2DModel

    levels = len(model.block_out_channels)
    attend = [model.attention and level == levels - 1 for level in range(levels)]
    return UNet2DModel(
        sample_size=image_size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=model.layers_per_block,
        block_out_channels=model.block_out_channels,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attend),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attend)),
        add_attention=model.attention,
        attention_head_dim=min(8, model.block_out_channels[-1]),
        norm_num_groups=math.gcd(*model.block_out_channels, 8),
        num_class_embeds=num_classes + 1 if model.conditional else None,
    )


@torch.no_grad()
def bottleneck(denoiser: UNet2DModel, x: Tensor, timestep: int) -> Tensor:
    """Mid-block activation [B, C', H', W'] of noisy images `x` [B, C, H, W] at a timestep.

    Encoded under the null condition, so that the latent of an image does not contain its label.
    """
    t = torch.full((len(x),), timestep, device=x.device)
    embedding = denoiser.time_embedding(denoiser.time_proj(t).to(x.dtype))
    null = null_condition(denoiser)
    if null is not None:
        embedding = embedding + denoiser.class_embedding(torch.full_like(t, null))
    hidden = denoiser.conv_in(x)
    for block in denoiser.down_blocks:
        hidden, _ = block(hidden_states=hidden, temb=embedding)
    return denoiser.mid_block(hidden, embedding)
