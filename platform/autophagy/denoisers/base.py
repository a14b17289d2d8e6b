"""What every denoiser gives: a network that predicts, and its encoder. A configuration of one needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from autophagy.common.section import Section

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Shape(NamedTuple):
    """What a network is built for."""

    image_size: int  # pixels, square
    channels: int
    num_classes: int  # 0 without labels


class Model(Section, ABC):
    """The section `model`: an architecture, and the diffusion that it is trained for. `kind` names it.

    A subclass is one architecture; its fields are its configuration.
    """

    kind: str
    conditional: bool = True  # on the class label
    num_train_timesteps: Annotated[int, Field(ge=2, le=10_000)] = 1000
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"

    @model_serializer(mode="wrap")
    def _own_fields_first(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What an architecture has of its own is what people look for first; and files in use have it in this order."""
        values = plain(self)
        shared = [name for name in Model.model_fields if name != "kind"]
        return {n: v for n, v in values.items() if n not in shared} | {n: values[n] for n in shared if n in values}

    @abstractmethod
    def build(self, shape: Shape) -> nn.Module:
        """An untrained network for images [B, channels, image_size, image_size].

        A conditional one has `num_classes + 1` conditions; the last is the null condition, see `Denoiser.null`.
        """

    @abstractmethod
    def predict(self, network: Any, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """What the diffusion trains for, [B, C, H, W].

        Args:
            network: As `build` made it, perhaps wrapped for distributed training: it must be called as a whole. A
                subclass may name the type of its own.
            x: float [B, C, H, W], noisy images.
            t: int64 [B], their timesteps.
            condition: int64 [B]; None for an unconditional network.
        """

    @abstractmethod
    def encode(self, network: Any, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """The bottleneck of noisy images, float [B, C', H', W']; arguments as in `predict`, `network` unwrapped."""

    def problem(self, image_size: int) -> str | None:
        """Why images of this size do not fit, and what to do; None if they do."""
        return None


@dataclass(frozen=True)
class Denoiser:
    """A model and its network."""

    model: Model
    network: nn.Module
    shape: Shape

    @property
    def null(self) -> int | None:
        """The condition that stands for "no condition"; None for an unconditional denoiser."""
        return self.shape.num_classes if self.model.conditional else None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def predict(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """See `Model.predict`."""
        return self.model.predict(self.network, x, t, condition)

    def encode(self, x: Tensor, t: Tensor) -> Tensor:
        """See `Model.encode`; under the null condition, so that the latent of an image does not contain its label."""
        condition = None if self.null is None else t.new_full(t.shape, self.null)
        return self.model.encode(self.network, x, t, condition)
