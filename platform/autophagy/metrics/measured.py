"""All numbers of one generation, from features, labels and origins that were computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from torch import Tensor

from autophagy.common.samples import UNLABELLED
from autophagy.common.seeds import rng_for
from autophagy.metrics.distribution import class_histogram_distance, frechet_distance, kernel_distance
from autophagy.metrics.entropy import duplicate_share, knn_entropy
from autophagy.metrics.manifold import manifold_scores
from autophagy.metrics.memorization import generalization_score, memorization_ratio
from autophagy.metrics.neighbours import nearest
from autophagy.metrics.provenance import mean_age, origin_shares, real_share
from autophagy.metrics.registry import METRICS, OTHERS
from autophagy.metrics.rows import Rows, TooFewRows
from autophagy.metrics.structure import balanced_ole, effective_rank, spectrum, total_variance, vendi_score

_CONFIDENCE_PERCENTILES = (10, 25, 50, 75, 90)
_DIRECTIONS = (1, 2, 4, 8, 16)  # evenly spaced on the logarithmic axis on which spectra fall


@dataclass(frozen=True)
class Measured:
    """What one generation is measured from; rows are images, all features come from one feature network.

    Features and latents may be tensors: what is computed from them is computed on their device. Metrics that need what
    is not given are NaN, see `Metric.needs`.
    """

    reference: Rows  # float32 [n_ref, D], held-out real images
    synthetic: Rows  # float32 [n, D], the first num_samples images of S_k, unfiltered
    generation: int = 0
    synthetic_label: np.ndarray | None = None  # int64 [n], the label asked for, -1 = none
    synthetic_predicted: np.ndarray | None = None  # int64 [n], label by the feature network, if it is a classifier
    synthetic_confidence: np.ndarray | None = None  # float32 [n], own-label probe confidence, NaN where none
    synthetic_latent: Rows | None = None  # float [n, L], bottleneck latents, encoder of generation 0
    synthetic_probe_label: np.ndarray | None = None  # int64 [n], argmax of the probe
    training: Rows | None = None  # float32 [m, D], D_k
    training_generation: np.ndarray | None = None  # int32 [m], origin of each training image, -1 = real
    training_label: np.ndarray | None = None  # int64 [m]
    reference_label: np.ndarray | None = None  # int64 [n_ref]
    reference_confidence: np.ndarray | None = None  # float32 [n_ref]
    num_candidates: int = 0  # 0 where nothing was selected: generation 0
    num_kept: int = 0
    new_classes: Sequence[int] = ()  # those that appear after generation 0
    budget: int | None = None  # most rows of `training` whose entropy is taken
    k: int = 5  # neighbours of precision, recall, density, coverage
    seed: int = 0  # of the random subsets; the same for all generations makes them comparable

    # Each pair of sets is searched once, for all that is told from it.

    @cached_property
    def among_synthetic(self) -> Tensor:
        """Distances from each synthetic row to its nearest others, k of them if there are, float64 [n, <= k]."""
        return nearest(self.synthetic, k=max(1, min(self.k, len(self.synthetic) - 1)))

    @cached_property
    def to_training(self) -> Tensor:
        """Distances from each synthetic row to its nearest training rows, two if there are, float64 [n, <= 2]."""
        training = _given(self.training)
        return nearest(self.synthetic, training, k=min(2, len(training)))


def measure(m: Measured) -> dict[str, float]:
    """Every metric of one generation.

    Returns:
        The keys of METRICS, always all of them, NaN where undefined (not given, no labels, too few rows); and where
        `training_generation` is given the share in D_k of each origin, `share_real`, `share_0` ...
        `share_{generation - 1}`.
    """
    values = dict.fromkeys(METRICS, math.nan)
    for part in _PARTS:
        with suppress(TooFewRows, _NotGiven):
            values.update(part(m))
    return values


def real_vs_real(train_features: Rows, reference: Rows, k: int, seed: int) -> dict[str, float]:
    """The floor of every curve: one set of real images measured as if a model had made it.

    Args:
        train_features: Real images disjoint from the reference, [n, D]; as many as are generated, because the
            Frechet distance depends on their number.
        reference: Held-out real images, [n_ref, D].
        k: Neighbours of the manifold metrics.
        seed: Of the random subsets.

    Returns:
        `real_vs_real_` and each of fid, kid, precision, recall, density, coverage; NaN where undefined.
    """
    floors = {key: metric.floor for key, metric in METRICS.items() if metric.floor in OTHERS}
    values = dict.fromkeys(floors, math.nan)
    m = Measured(reference, train_features, k=k, seed=seed)
    with suppress(TooFewRows):
        for part in (_frechet, _kernel, _manifold):
            values.update(part(m))
    return {floor: values[key] for key, floor in floors.items() if floor}


def _frechet(m: Measured) -> dict[str, float]:
    return {"fid": frechet_distance(m.reference, m.synthetic)}


def _kernel(m: Measured) -> dict[str, float]:
    # Subsets of half the images, so that their spread is the standard error and not 0.
    half = min(len(m.reference), len(m.synthetic)) // 2
    mean, std = kernel_distance(m.reference, m.synthetic, subset_size=min(1000, half), seed=m.seed)
    return {"kid": mean, "kid_std": std}


def _manifold(m: Measured) -> dict[str, float]:
    near = m.among_synthetic if len(m.synthetic) > m.k else None
    return manifold_scores(m.reference, m.synthetic, m.k, near)._asdict()


def _spread_of_training(m: Measured) -> dict[str, float]:
    training = _given(m.training)
    if m.budget and len(training) > m.budget:
        # Nearest-neighbour entropy depends on the number of points: always that of a budget's worth.
        training = training[rng_for(m.seed, "entropy-rows").permutation(len(training))[: m.budget]]
    return {"entropy": knn_entropy(training)}


def _spread_of_synthetic(m: Measured) -> dict[str, float]:
    return {
        "duplicate_share": duplicate_share(m.synthetic),
        "feature_variance": total_variance(m.synthetic),
        "entropy_synthetic": knn_entropy(m.synthetic, near=m.among_synthetic),
    }


def _shape_of_synthetic(m: Measured) -> dict[str, float]:
    deviations = spectrum(m.synthetic, max(_DIRECTIONS))
    return {
        "vendi": vendi_score(m.synthetic),
        **{f"spectrum_{j}": float(deviations[j - 1]) for j in _DIRECTIONS if j <= len(deviations)},
        "effective_rank": effective_rank(m.synthetic),
    }


def _generalization(m: Measured) -> dict[str, float]:
    return {
        "generalization_score": generalization_score(m.synthetic, _given(m.training), m.to_training),
        "real_baseline": generalization_score(m.reference, _given(m.training)),
    }


def _memorization(m: Measured) -> dict[str, float]:
    training = _given(m.training)
    near = m.to_training if len(training) > 1 else None
    return {"memorization_ratio": memorization_ratio(m.synthetic, training, near=near)}


def _ole(m: Measured) -> dict[str, float]:
    label, reference_label = _given(m.synthetic_label), _given(m.reference_label)
    num_classes = len(np.unique(reference_label[reference_label >= 0]))
    return {"ole": balanced_ole(_given(m.synthetic_latent), label, num_classes, m.seed)}


def _confidence(m: Measured) -> dict[str, float]:
    confidence = _given(m.synthetic_confidence)
    known = confidence[~np.isnan(confidence)].astype(np.float64)
    if not known.size:
        return {}
    points = np.percentile(known, _CONFIDENCE_PERCENTILES)
    percentiles = {f"confidence_p{p}": float(v) for p, v in zip(_CONFIDENCE_PERCENTILES, points, strict=True)}
    return {"confidence": _mean(confidence), **percentiles}


def _confidence_of_real(m: Measured) -> dict[str, float]:
    return {"confidence_real": _mean(_given(m.reference_confidence))}


def _probe_accuracy(m: Measured) -> dict[str, float]:
    return {"probe_accuracy": _agreement(_given(m.synthetic_probe_label), _given(m.synthetic_label))}


def _label_agreement(m: Measured) -> dict[str, float]:
    return {"label_agreement": _agreement(_given(m.synthetic_predicted), _given(m.synthetic_label))}


def _new_class_share(m: Measured) -> dict[str, float]:
    if not m.new_classes:
        return {}
    return {"new_class_share": float(np.isin(_given(m.training_label), m.new_classes).mean())}


def _new_class_agreement(m: Measured) -> dict[str, float]:
    label = _given(m.synthetic_label)
    asked = np.where(np.isin(label, m.new_classes), label, UNLABELLED)
    return {"new_class_agreement": _agreement(_given(m.synthetic_predicted), asked)}


def _class_histogram(m: Measured) -> dict[str, float]:
    distance = class_histogram_distance(_given(m.synthetic_predicted), _given(m.reference_label))
    return {"class_histogram": distance}


def _provenance(m: Measured) -> dict[str, float]:
    origin = _given(m.training_generation)
    shares = origin_shares(origin, m.generation)
    return {"real_share": real_share(origin), "mean_age": mean_age(origin, m.generation), **shares}


def _kept(m: Measured) -> dict[str, float]:
    return {"kept_share": m.num_kept / m.num_candidates} if m.num_candidates else {}


class _NotGiven(Exception):
    """There is nothing to measure this from."""


@overload
def _given(value: np.ndarray | None) -> np.ndarray: ...
@overload
def _given(value: Rows | None) -> Rows: ...
def _given(value: Rows | None) -> Rows:
    if value is None:
        raise _NotGiven
    return value


def _mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if known.size else math.nan


def _agreement(found: np.ndarray, asked: np.ndarray) -> float:
    """Share of rows whose label was found, of those that were asked for one; NaN if none was."""
    labelled = asked >= 0
    return float((found[labelled] == asked[labelled]).mean()) if labelled.any() else math.nan


_PARTS: tuple[Callable[[Measured], dict[str, float]], ...] = (
    _frechet,
    _kernel,
    _manifold,
    _spread_of_training,
    _spread_of_synthetic,
    _shape_of_synthetic,
    _generalization,
    _memorization,
    _ole,
    _confidence,
    _confidence_of_real,
    _probe_accuracy,
    _label_agreement,
    _new_class_share,
    _new_class_agreement,
    _class_histogram,
    _provenance,
    _kept,
)
