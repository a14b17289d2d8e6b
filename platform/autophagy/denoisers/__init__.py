"""Denoisers: which there are, and the one that a configuration means. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from autophagy.common.section import make_choice
from autophagy.denoisers.base import Model
from autophagy.denoisers.unet import UNet

MODELS: tuple[type[Model], ...] = (UNet,)
OUTSIDE = "autophagy.denoisers"  # entry points of installed packages that bring denoisers of their own

__all__ = ["MODELS", "OUTSIDE", "AnyModel", "Model", "UNet", "make_model"]


def make_model(config: Mapping[str, Any] | Model) -> Model:
    """The denoiser that `{"kind": name, field: value, ...}` describes; without a `kind` it is a `unet`.

    Raises:
        UserError: unknown kind, unknown field, or a value out of range; one line.
    """
    if isinstance(config, Model):
        return config
    family = MODELS
    if isinstance(config, Mapping):
        config = {"kind": UNet.model_fields["kind"].default} | dict(config)
        if config["kind"] not in [member.model_fields["kind"].default for member in MODELS]:
            # Only what is installed and says so: a configuration names no code to be run.
            family += tuple(entry.load() for entry in entry_points(group=OUTSIDE, name=str(config["kind"])))
    return make_choice(family, "model", "kind", config)


AnyModel = Annotated[SerializeAsAny[Model], BeforeValidator(make_model)]
