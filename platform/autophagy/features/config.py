"""The section `metrics` of an experiment, and which packages feature networks need."""

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


EXTRAS = {"inception": ("torch_fidelity", "inception"), "dinov2": ("transformers", "dinov2")}


def check_available(kind: str) -> None:
    """Raise a UserError if the packages of a feature network are not installed."""
    package, extra = EXTRAS.get(kind, ("torch", ""))
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"metrics.feature_network = {kind}: needs the package {package}; "
            f"install it with pip install 'autophagy[{extra}]', or use classifier"
        )
