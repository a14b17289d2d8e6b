"""The U-Net of diffusers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from autophagy.common.section import since
from autophagy.denoisers.base import Model, Shape

if TYPE_CHECKING:
    from diffusers import UNet2DModel
    from torch import Tensor, nn

Width = Annotated[int, Field(ge=4, multiple_of=4)]  # channels


class UNet(Model):
    """A diffusers `UNet2DModel`; every level but the last halves the image."""

    # Left out where files are written too: those from before there were other kinds stay as they are.
    kind: Annotated[Literal["unet"], since("unet"), Field(exclude_if=lambda kind: kind == "unet")] = "unet"
    block_out_channels: Annotated[tuple[Width, ...], Field(min_length=1)] = (32, 64)  # of the levels
    layers_per_block: Annotated[int, Field(ge=1, le=8)] = 1
    attention: bool = False  # self-attention at the lowest resolution

    def build(self, shape: Shape) -> UNet2DModel:
        from diffusers import UNet2DModel

        levels = len(self.block_out_channels)
        attend = [self.attention and level == levels - 1 for level in range(levels)]
        return UNet2DModel(
            sample_size=shape.image_size,
            in_channels=shape.channels,
            out_channels=shape.channels,
            layers_per_block=self.layers_per_block,
            block_out_channels=self.block_out_channels,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attend),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attend)),
            add_attention=self.attention,
            attention_head_dim=min(8, self.block_out_channels[-1]),
            norm_num_groups=math.gcd(*self.block_out_channels, 8),
            num_class_embeds=shape.num_classes + 1 if self.conditional else None,
        )

    def predict(self, network: nn.Module, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return network(x, t, condition).sample

    def encode(self, network: UNet2DModel, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        embedding = network.time_embedding(network.time_proj(t).to(x.dtype))
        if condition is not None:
            embedding = embedding + network.class_embedding(condition)
        hidden = network.conv_in(x)
        for block in network.down_blocks:
            hidden, _ = block(hidden_states=hidden, temb=embedding)
        return network.mid_block(hidden, embedding)

    def problem(self, image_size: int) -> str | None:
        halvings = len(self.block_out_channels) - 1
        if image_size % 2**halvings == 0:
            return None
        return (
            f"data.image_size = {image_size} cannot be halved {halvings} times; use a multiple of {2**halvings} "
            "or fewer model.block_out_channels"
        )
