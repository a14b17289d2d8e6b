"""Every number that a record holds: what it says, which end is the good one, what it takes. Imports nothing heavy."""

from __future__ import annotations

import re
from typing import NamedTuple


class Metric(NamedTuple):
    """What a table or a plot needs to know about one number."""

    description: str
    higher_is_better: bool | None  # None: neither end is the good one
    needs: tuple[str, ...] = ()  # fields of `Measured` without which it is NaN, beside the features it always has
    floor: str | None = None  # key of what real images score when they are measured in the place of S_k


_CONFIDENCE, _TRAINING = ("synthetic_confidence",), ("training",)
# What `measure` gives of every generation, in the order of tables.
# D_k is the training set of generation k, S_k its samples, "real" the held-out reference.
METRICS: dict[str, Metric] = {
    "fid": Metric("Frechet distance of S_k to real", False, floor="real_vs_real_fid"),
    "kid": Metric("kernel distance (cubic MMD^2) of S_k to real", False, floor="real_vs_real_kid"),
    "kid_std": Metric("standard deviation of kid over half-size subsets", None),
    "precision": Metric("share of S_k inside the real manifold (quality)", True, floor="real_vs_real_precision"),
    "recall": Metric("share of real inside the manifold of S_k (diversity)", True, floor="real_vs_real_recall"),
    "density": Metric("real balls around an image of S_k, over k", True, floor="real_vs_real_density"),
    "coverage": Metric("share of real balls that hold an image of S_k", True, floor="real_vs_real_coverage"),
    "entropy": Metric("nearest-neighbour entropy of D_k in nats (compare at equal size)", True, _TRAINING),
    "entropy_synthetic": Metric("nearest-neighbour entropy of S_k in nats", True),
    "duplicate_share": Metric("share of S_k that repeats an earlier image", False),
    "vendi": Metric("effective number of different images in S_k (Vendi score, cosine)", True),
    "spectrum_1": Metric("standard deviation of S_k along its 1st principal direction", None),
    "spectrum_2": Metric("standard deviation of S_k along its 2nd principal direction", None),
    "spectrum_4": Metric("standard deviation of S_k along its 4th principal direction", None),
    "spectrum_8": Metric("standard deviation of S_k along its 8th principal direction", None),
    "spectrum_16": Metric("standard deviation of S_k along its 16th principal direction", None),
    "effective_rank": Metric("number of directions that the features of S_k spread over", True),
    "generalization_score": Metric("mean distance from S_k to the nearest image of D_k", True, _TRAINING),
    "real_baseline": Metric("mean distance from real to the nearest image of D_k", None, _TRAINING),
    "memorization_ratio": Metric("share of S_k with d1/d2 < 1/3 to the distinct images of D_k", False, _TRAINING),
    "ole": Metric(
        "overlap of the class subspaces of S_k (0 is orthogonal)",
        False,
        ("synthetic_latent", "synthetic_label", "reference_label"),
    ),
    "confidence": Metric("mean own-label probe confidence of S_k", True, _CONFIDENCE, floor="confidence_real"),
    "confidence_p10": Metric("10th percentile of the confidence of S_k", True, _CONFIDENCE),
    "confidence_p25": Metric("25th percentile of the confidence of S_k", True, _CONFIDENCE),
    "confidence_p50": Metric("median of the confidence of S_k", True, _CONFIDENCE),
    "confidence_p75": Metric("75th percentile of the confidence of S_k", True, _CONFIDENCE),
    "confidence_p90": Metric("90th percentile of the confidence of S_k", True, _CONFIDENCE),
    "confidence_real": Metric("mean own-label probe confidence of real: the ceiling", None, ("reference_confidence",)),
    "probe_accuracy": Metric(
        "share of S_k whose asked label the probe finds", True, ("synthetic_probe_label", "synthetic_label")
    ),
    "feature_variance": Metric("trace of the feature covariance of S_k", None),
    "class_histogram": Metric(
        "total variation between the predicted classes of S_k and the real ones",
        False,
        ("synthetic_predicted", "reference_label"),
    ),
    "label_agreement": Metric(
        "share of S_k whose asked label the classifier finds", True, ("synthetic_predicted", "synthetic_label")
    ),
    "real_share": Metric("share of real images in D_k", None, ("training_generation",)),
    "mean_age": Metric("mean age of D_k in generations; real counts as generation -1", None, ("training_generation",)),
    "kept_share": Metric("share of the candidates that was kept", None, ("num_candidates",)),
    "new_class_share": Metric(
        "share of D_k of classes that appeared after generation 0", None, ("new_classes", "training_label")
    ),
    "new_class_agreement": Metric(
        "label_agreement of the S_k of classes that appeared after generation 0",
        True,
        ("new_classes", "synthetic_predicted", "synthetic_label"),
    ),
}
# What records hold besides, all or some of them.
OTHERS: dict[str, Metric] = {
    "total_variance": Metric("feature_variance over that of generation 0", None),
    "share_real": Metric("share of real images in D_k", None),
    "share_<j>": Metric("share of the samples of generation j in D_k", None),
    **{
        m.floor: Metric(f"{key} of other real images in the place of S_k", None)
        for key, m in METRICS.items()
        if m.floor and m.floor not in METRICS
    },
    "feature_network_accuracy_held_out": Metric("share of held-out images whose label the classifier finds", True),
    "probe_accuracy_held_out": Metric("share of held-out images whose label the newly fitted probe finds", True),
    "probe_accuracy_train": Metric("share of the images it was fitted on whose label the probe finds", None),
}


def metric_of(key: str) -> Metric:
    """What is known of a record's number; of a key that is in neither table, that no end of it is the good one."""
    name = re.sub(r"^share_\d+$", "share_<j>", key)
    return METRICS.get(name) or OTHERS.get(name) or Metric(key.replace("_", " "), None)
