"""Metrics of one generation, from cached features: rows are images; float64, on the device that the features are on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from autophagy.metrics.registry import METRICS, Metric, metric_of

if TYPE_CHECKING:
    from autophagy.metrics.distribution import class_histogram_distance, frechet_distance, kernel_distance
    from autophagy.metrics.entropy import duplicate_share, knn_entropy
    from autophagy.metrics.manifold import Manifold, density_coverage, manifold_scores, precision_recall
    from autophagy.metrics.measured import Measured, measure, real_vs_real
    from autophagy.metrics.memorization import generalization_score, memorization_ratio
    from autophagy.metrics.neighbours import nearest_distances
    from autophagy.metrics.provenance import mean_age, origin_shares, real_share
    from autophagy.metrics.rows import TooFewRows
    from autophagy.metrics.structure import (
        balanced_unit_rows,
        effective_rank,
        ole_score,
        spectrum,
        total_variance,
        vendi_score,
    )

# What computes them takes torch, which takes seconds to import: only when it is asked for.
_FILES = {
    "distribution": ("class_histogram_distance", "frechet_distance", "kernel_distance"),
    "entropy": ("duplicate_share", "knn_entropy"),
    "manifold": ("Manifold", "density_coverage", "manifold_scores", "precision_recall"),
    "measured": ("Measured", "measure", "real_vs_real"),
    "memorization": ("generalization_score", "memorization_ratio"),
    "neighbours": ("nearest_distances",),
    "provenance": ("mean_age", "origin_shares", "real_share"),
    "rows": ("TooFewRows",),
    "structure": (
        "balanced_unit_rows",
        "effective_rank",
        "ole_score",
        "spectrum",
        "total_variance",
        "vendi_score",
    ),
}
_FILE = {name: file for file, names in _FILES.items() for name in names}

__all__ = [
    "METRICS",
    "Manifold",
    "Measured",
    "Metric",
    "TooFewRows",
    "balanced_unit_rows",
    "class_histogram_distance",
    "density_coverage",
    "duplicate_share",
    "effective_rank",
    "frechet_distance",
    "generalization_score",
    "kernel_distance",
    "knn_entropy",
    "manifold_scores",
    "mean_age",
    "measure",
    "memorization_ratio",
    "metric_of",
    "nearest_distances",
    "ole_score",
    "origin_shares",
    "precision_recall",
    "real_share",
    "real_vs_real",
    "spectrum",
    "total_variance",
    "vendi_score",
]


def __getattr__(name: str) -> object:
    if name not in _FILE:
        raise AttributeError(f"module 'autophagy.metrics' has no attribute {name!r}")
    return getattr(import_module(f"autophagy.metrics.{_FILE[name]}"), name)
