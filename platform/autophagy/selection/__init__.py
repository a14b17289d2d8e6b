"""Which candidates are trained on: one class per published idea. A new one is one file and one line below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from autophagy.common.section import make_choice
from autophagy.selection.anti_lsf import AntiLsf
from autophagy.selection.base import Candidates, ProbeSettings, Selector
from autophagy.selection.center_match import CenterMatch
from autophagy.selection.class_balanced_random import ClassBalancedRandom
from autophagy.selection.cov_match import CovMatch
from autophagy.selection.density_ratio import DensityRatio
from autophagy.selection.greedy import Greedy
from autophagy.selection.kmeans import KMeans
from autophagy.selection.likelihood import Likelihood
from autophagy.selection.lsf import ConfidenceSelector, Lsf
from autophagy.selection.none import NoSelection
from autophagy.selection.oldest_first import OldestFirst
from autophagy.selection.ole import Ole
from autophagy.selection.oracle_real import OracleReal
from autophagy.selection.random import Random
from autophagy.selection.threshold_decay import ThresholdDecay
from autophagy.selection.trajectory_variance import TrajectoryVariance

SELECTORS: tuple[type[Selector], ...] = (
    NoSelection,
    Random,
    Lsf,
    Ole,
    Greedy,
    ThresholdDecay,
    Likelihood,
    TrajectoryVariance,
    DensityRatio,
    CenterMatch,
    CovMatch,
    KMeans,
    AntiLsf,
    OldestFirst,
    OracleReal,
    ClassBalancedRandom,
)

__all__ = [
    "SELECTORS",
    "AnySelector",
    "Candidates",
    "ConfidenceSelector",
    "ProbeSettings",
    "Random",
    "Selector",
    "make_selector",
]


def make_selector(config: Mapping[str, Any] | Selector) -> Selector:
    """The selector that `{"strategy": name, field: value, ...}` describes.

    Raises:
        UserError: unknown strategy, unknown field, or a value out of range; one line.
    """
    return make_choice(SELECTORS, "selection", "strategy", config)


AnySelector = Annotated[SerializeAsAny[Selector], BeforeValidator(make_selector)]
