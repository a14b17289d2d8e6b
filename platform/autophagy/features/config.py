"""The section `metrics` of an experiment, the probe's settings, and which packages feature networks need."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Literal

from pydantic import Field

from autophagy.common.errors import UserError
from autophagy.common.samples import MOST_IMAGES
from autophagy.common.section import Section


class Metrics(Section):
    """What is measured, from the same number of samples and the same held-out reference in every generation."""

    feature_network: Literal["classifier", "latent", "pixels", "inception", "dinov2"] = "classifier"
    num_samples: Annotated[int, Field(ge=10, lt=MOST_IMAGES)] = 1000  # first images of every generation, unfiltered
    k: Annotated[int, Field(ge=1, le=100)] = 5  # neighbours of precision, recall, density, coverage


class Probe(Section):
    """The softmax probe on bottleneck latents; taken from the selection where the strategy has its own."""

    timestep: Literal["auto"] | int | tuple[int, ...] = "auto"  # auto: best held-out accuracy on a grid
    pool: Literal["flatten", "mean", "max"] = "flatten"

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The timesteps that were given; empty for auto."""
        if self.timestep == "auto":
            return ()
        return (self.timestep,) if isinstance(self.timestep, int) else self.timestep


EXTRAS = {"inception": ("torch_fidelity", "inception"), "dinov2": ("transformers", "dinov2")}


def check_available(kind: str) -> None:
    """Raise a UserError if the packages of a feature network are not installed."""
    package, extra = EXTRAS.get(kind, ("torch", ""))
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"metrics.feature_network = {kind}: needs the package {package}; "
            f"install it with pip install 'autophagy[{extra}]', or use classifier"
        )
