"""What is done about collapse other than choosing images: to the training images, the sampler, or the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny

from autophagy.common.section import Section, make_choice


class Correction(Section):
    """Acts on generations >= 1, so that generation 0 is shared with every other loop. `kind` names it."""

    kind: str


class NoCorrection(Correction):
    """Nothing."""

    kind: Literal["none"] = "none"


class SelfCorrection(Correction):
    """Every synthetic training image moves towards the nearest real centre of its class (arXiv 2402.07087).

    The centres are k-means centres of the pixels of R, class by class. `strength` s is gamma / (1 + gamma) of the
    paper: an image x becomes (1 - s) x + s c, so that 1 replaces it by its centre c.
    """

    kind: Literal["self_correction"] = "self_correction"
    strength: float = Field(default=1.0, gt=0, le=1)
    num_centres: int = Field(default=16, ge=1)  # of each class


class SelfTrained(Correction):
    """What needs an auxiliary model: the model of a generation, fine-tuned on samples of its own."""

    weight: float = Field(default=1.0, gt=0, le=10)  # w: how far away from the auxiliary model
    num_samples: int | None = Field(default=None, ge=1)  # that the auxiliary model is fine-tuned on; null: budget
    epochs: int | None = Field(default=None, ge=1)  # over them; null: training.epochs


class Sims(SelfTrained):
    """Samples with `(1 + w) eps - w eps_aux`, away from what the model's own samples teach (arXiv 2408.16333).

    Every image takes two network calls a step instead of one.
    """

    kind: Literal["sims"] = "sims"


class Neon(SelfTrained):
    """The weights of the generation become `(1 + w) theta - w theta_aux` (arXiv 2510.03597)."""

    kind: Literal["neon"] = "neon"


CORRECTIONS: tuple[type[Correction], ...] = (NoCorrection, SelfCorrection, Sims, Neon)


def make_correction(config: Mapping[str, Any] | Correction) -> Correction:
    """The correction that `{"kind": name, field: value, ...}` describes.

    Raises:
        UserError: unknown kind, unknown field, or a value out of range; one line.
    """
    return make_choice(CORRECTIONS, "correction", "kind", config)


AnyCorrection = Annotated[SerializeAsAny[Correction], BeforeValidator(make_correction)]


def class_centres(
    x: np.ndarray, labels: np.ndarray, num_centres: int, rng: np.random.Generator
) -> dict[int, np.ndarray]:
    """k-means centres float32 [<= num_centres, D] of every class of x [n, D]; a small class is its own centres."""
    from sklearn.cluster import KMeans

    centres = {}
    for label in np.unique(labels):
        points = np.unique(x[labels == label].astype(np.float32), axis=0)
        if len(points) > num_centres:
            means = KMeans(num_centres, n_init=1, random_state=int(rng.integers(2**31)))
            points = means.fit(points).cluster_centers_.astype(np.float32)
        centres[int(label)] = points
    return centres


def move_to_centres(
    x: np.ndarray, labels: np.ndarray, centres: Mapping[int, np.ndarray], strength: float
) -> np.ndarray:
    """Points x [n, D] moved by a share `strength` of the way to the nearest centre of their class, float32 [n, D]."""
    from scipy.spatial.distance import cdist

    moved = x.astype(np.float32)
    for label, own in centres.items():
        rows = np.flatnonzero(labels == label)
        if rows.size:
            nearest = own[cdist(moved[rows], own, "sqeuclidean").argmin(axis=1)]
            moved[rows] += strength * (nearest - moved[rows])
    return moved
