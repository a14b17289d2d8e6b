"""A denoiser from outside, as somebody else's package would bring it: a perceptron on small images."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from autophagy.denoisers.base import Model, Shape


class Network(nn.Module):
    """Images, timesteps and classes side by side, through two hidden layers."""

    def __init__(self, model: Mlp, shape: Shape) -> None:
        super().__init__()
        pixels = shape.channels * shape.image_size**2
        self.steps = nn.Embedding(model.num_train_timesteps, model.width)
        self.classes = nn.Embedding(shape.num_classes + 1, model.width) if model.conditional else None
        self.body = nn.Sequential(nn.Linear(pixels + model.width, model.width), nn.SiLU())
        self.head = nn.Sequential(nn.Linear(model.width, model.width), nn.SiLU(), nn.Linear(model.width, pixels))

    def hidden(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        embedding = self.steps(t)
        if self.classes is not None:
            embedding = embedding + self.classes(condition)
        return self.body(torch.cat([x.flatten(1), embedding], dim=1))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return self.head(self.hidden(x, t, condition)).view_as(x)


class Mlp(Model):
    """A perceptron with two hidden layers."""

    kind: Literal["mlp"] = "mlp"
    width: Annotated[int, Field(ge=1)] = 64

    def build(self, shape: Shape) -> nn.Module:
        return Network(self, shape)

    def predict(self, network: nn.Module, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return network(x, t, condition)

    def encode(self, network: Network, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return network.hidden(x, t, condition)[:, :, None, None]
