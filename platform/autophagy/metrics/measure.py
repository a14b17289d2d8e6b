"""All numbers of one generation, from features, labels and origins that were computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autophagy.common.samples import UNLABELLED
from autophagy.common.seeds import rng_for
from autophagy.metrics.distribution import class_histogram_distance, frechet_distance, kernel_distance
from autophagy.metrics.entropy import duplicate_share, knn_entropy
from autophagy.metrics.manifold import manifold_scores
from autophagy.metrics.memorization import generalization_score, memorization_ratio
from autophagy.metrics.provenance import mean_age, origin_shares, real_share
from autophagy.metrics.rows import Rows, TooFewRows
from autophagy.metrics.structure import (
    balanced_unit_rows,
    effective_rank,
    ole_score,
    spectrum,
    total_variance,
    vendi_score,
)

_OLE_PER_CLASS = 50
_CONFIDENCE_PERCENTILES = (10, 25, 50, 75, 90)
_DIRECTIONS = (1, 2, 4, 8, 16)  # evenly spaced on the logarithmic axis on which spectra fall


class Metric(NamedTuple):
    """What a table or a plot needs to know about one number."""

    description: str
    higher_is_better: bool | None  # None: neither end is the good one


# D_k is the training set of generation k, S_k its samples, "real" the held-out reference.
METRICS: dict[str, Metric] = {
    "fid": Metric("Frechet distance of S_k to real", False),
    "kid": Metric("kernel distance (cubic MMD^2) of S_k to real", False),
    "kid_std": Metric("standard deviation of kid over half-size subsets", None),
    "precision": Metric("share of S_k inside the real manifold (quality)", True),
    "recall": Metric("share of real inside the manifold of S_k (diversity)", True),
    "density": Metric("real balls around an image of S_k, over k", True),
    "coverage": Metric("share of real balls that hold an image of S_k", True),
    "entropy": Metric("nearest-neighbour entropy of D_k in nats (compare at equal size)", True),
    "entropy_synthetic": Metric("nearest-neighbour entropy of S_k in nats", True),
    "duplicate_share": Metric("share of S_k that repeats an earlier image", False),
    "vendi": Metric("effective number of different images in S_k (Vendi score, cosine)", True),
    "spectrum_1": Metric("standard deviation of S_k along its 1st principal direction", None),
    "spectrum_2": Metric("standard deviation of S_k along its 2nd principal direction", None),
    "spectrum_4": Metric("standard deviation of S_k along its 4th principal direction", None),
    "spectrum_8": Metric("standard deviation of S_k along its 8th principal direction", None),
    "spectrum_16": Metric("standard deviation of S_k along its 16th principal direction", None),
    "effective_rank": Metric("number of directions that the features of S_k spread over", True),
    "generalization_score": Metric("mean distance from S_k to the nearest image of D_k", True),
    "real_baseline": Metric("mean distance from real to the nearest image of D_k", None),
    "memorization_ratio": Metric("share of S_k with d1/d2 < 1/3 to the distinct images of D_k", False),
    "ole": Metric("overlap of the class subspaces of S_k (0 is orthogonal)", False),
    "confidence": Metric("mean own-label probe confidence of S_k", True),
    "confidence_p10": Metric("10th percentile of the confidence of S_k", True),
    "confidence_p25": Metric("25th percentile of the confidence of S_k", True),
    "confidence_p50": Metric("median of the confidence of S_k", True),
    "confidence_p75": Metric("75th percentile of the confidence of S_k", True),
    "confidence_p90": Metric("90th percentile of the confidence of S_k", True),
    "confidence_real": Metric("mean own-label probe confidence of real: the ceiling", None),
    "probe_accuracy": Metric("share of S_k whose asked label the probe finds", True),
    "feature_variance": Metric("trace of the feature covariance of S_k", None),
    "class_histogram": Metric("total variation between the predicted classes of S_k and the real ones", False),
    "label_agreement": Metric("share of S_k whose asked label the classifier finds", True),
    "real_share": Metric("share of real images in D_k", None),
    "mean_age": Metric("mean age of D_k in generations; real counts as generation -1", None),
    "kept_share": Metric("share of the candidates that was kept", None),
    "new_class_share": Metric("share of D_k of classes that appeared after generation 0", None),
    "new_class_agreement": Metric("label_agreement of the S_k of classes that appeared after generation 0", True),
}


@dataclass(frozen=True)
class Measured:
    """What one generation is measured from; rows are images, all features come from one feature network.

    Features and latents may be tensors: what is computed from them is computed on their device.
    """

    generation: int
    reference: Rows  # float32 [n_ref, D], held-out real images
    synthetic: Rows  # float32 [n, D], the first num_samples images of S_k, unfiltered
    synthetic_label: np.ndarray  # int64 [n], the label asked for, -1 = none
    synthetic_predicted: np.ndarray | None  # int64 [n], label by the feature network; None if it has no classifier
    synthetic_confidence: np.ndarray  # float32 [n], own-label probe confidence, NaN where none
    synthetic_latent: Rows | None  # float [n, L], bottleneck latents, encoder of generation 0
    synthetic_probe_label: np.ndarray | None  # int64 [n], argmax of the probe
    training: Rows  # float32 [m, D], D_k
    training_generation: np.ndarray  # int32 [m], origin of each training image, -1 = real
    reference_label: np.ndarray  # int64 [n_ref]
    reference_confidence: np.ndarray  # float32 [n_ref]
    num_candidates: int  # 0 where nothing was selected: generation 0
    num_kept: int
    k: int = 5  # neighbours of precision, recall, density, coverage
    seed: int = 0  # of the random subsets; the same for all generations makes them comparable
    training_label: np.ndarray | None = None  # int64 [m]
    new_classes: Sequence[int] = ()  # those that appear after generation 0


def measure(m: Measured) -> dict[str, float]:
    """Every metric of one generation.

    Returns:
        The keys of METRICS, always all of them, NaN where undefined (no labels, too few rows); and the share
        in D_k of each origin generation, `share_real`, `share_0` ... `share_{generation - 1}`.
    """
    values = dict.fromkeys(METRICS, math.nan)
    for part in _PARTS:
        with suppress(TooFewRows):
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
    values = dict.fromkeys(("fid", "kid", "precision", "recall", "density", "coverage"), math.nan)
    with suppress(TooFewRows):
        values["fid"] = frechet_distance(reference, train_features)
        values["kid"], _ = _kernel_distance(reference, train_features, seed)
        values |= manifold_scores(reference, train_features, k)._asdict()
    return {f"real_vs_real_{key}": value for key, value in values.items()}


def _frechet(m: Measured) -> dict[str, float]:
    return {"fid": frechet_distance(m.reference, m.synthetic)}


def _kernel(m: Measured) -> dict[str, float]:
    mean, std = _kernel_distance(m.reference, m.synthetic, m.seed)
    return {"kid": mean, "kid_std": std}


def _kernel_distance(reference: Rows, synthetic: Rows, seed: int) -> tuple[float, float]:
    # Subsets of half the images, so that their spread is the standard error and not 0.
    half = min(len(reference), len(synthetic)) // 2
    return kernel_distance(reference, synthetic, subset_size=min(1000, half), seed=seed)


def _manifold(m: Measured) -> dict[str, float]:
    return manifold_scores(m.reference, m.synthetic, m.k)._asdict()


def _spread_of_training(m: Measured) -> dict[str, float]:
    return {"entropy": knn_entropy(m.training)}


def _spread_of_synthetic(m: Measured) -> dict[str, float]:
    return {
        "duplicate_share": duplicate_share(m.synthetic),
        "feature_variance": total_variance(m.synthetic),
        "entropy_synthetic": knn_entropy(m.synthetic),
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
        "generalization_score": generalization_score(m.synthetic, m.training),
        "real_baseline": generalization_score(m.reference, m.training),
    }


def _memorization(m: Measured) -> dict[str, float]:
    return {"memorization_ratio": memorization_ratio(m.synthetic, m.training)}


def _ole(m: Measured) -> dict[str, float]:
    if m.synthetic_latent is None:
        return {}
    # Half of an even share: the same number in every generation, and nearly always there if labels are drawn.
    num_classes = len(np.unique(m.reference_label[m.reference_label >= 0]))
    per_class = min(_OLE_PER_CLASS, len(m.synthetic) // (2 * max(1, num_classes)))
    rng = rng_for(m.seed, "ole")
    return {"ole": ole_score(*balanced_unit_rows(m.synthetic_latent, m.synthetic_label, per_class, rng))}


def _confidence(m: Measured) -> dict[str, float]:
    values = {"confidence_real": _mean(m.reference_confidence), "confidence": _mean(m.synthetic_confidence)}
    known = m.synthetic_confidence[~np.isnan(m.synthetic_confidence)]
    if known.size:
        points = np.percentile(known.astype(np.float64), _CONFIDENCE_PERCENTILES)
        values |= {f"confidence_p{p}": float(v) for p, v in zip(_CONFIDENCE_PERCENTILES, points, strict=True)}
    return values


def _labels(m: Measured) -> dict[str, float]:
    return {
        "probe_accuracy": _agreement(m.synthetic_probe_label, m.synthetic_label),
        "label_agreement": _agreement(m.synthetic_predicted, m.synthetic_label),
    }


def _new_classes(m: Measured) -> dict[str, float]:
    if not m.new_classes or m.training_label is None:
        return {}
    asked = np.where(np.isin(m.synthetic_label, m.new_classes), m.synthetic_label, UNLABELLED)
    return {
        "new_class_share": float(np.isin(m.training_label, m.new_classes).mean()),
        "new_class_agreement": _agreement(m.synthetic_predicted, asked),
    }


def _class_histogram(m: Measured) -> dict[str, float]:
    if m.synthetic_predicted is None:
        return {}
    return {"class_histogram": class_histogram_distance(m.synthetic_predicted, m.reference_label)}


def _provenance(m: Measured) -> dict[str, float]:
    return {
        "real_share": real_share(m.training_generation),
        "mean_age": mean_age(m.training_generation, m.generation),
        **origin_shares(m.training_generation, m.generation),
    }


def _kept(m: Measured) -> dict[str, float]:
    return {"kept_share": m.num_kept / m.num_candidates} if m.num_candidates else {}


def _mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if known.size else math.nan


def _agreement(found: np.ndarray | None, asked: np.ndarray) -> float:
    """Share of rows whose label was found, of those that were asked for one; NaN if none was."""
    labelled = asked >= 0
    if found is None or not labelled.any():
        return math.nan
    return float((found[labelled] == asked[labelled]).mean())


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
    _labels,
    _new_classes,
    _class_histogram,
    _provenance,
    _kept,
)
