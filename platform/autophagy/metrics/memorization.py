"""How far generated images are from the images their model was trained on."""

from __future__ import annotations

from torch import Tensor

from autophagy.metrics.neighbours import nearest
from autophagy.metrics.rows import Rows, distinct_rows, two_sets


def generalization_score(synthetic: Rows, training: Rows, near: Tensor | None = None) -> float:
    """Mean distance from a generated image to its nearest training image (arXiv 2509.16499).

    In units of the features. It falls to 0 as a loop turns from generalization to memorization; the same
    number for held-out real images is the baseline.

    Args:
        synthetic: [n, D].
        training: What the model that made `synthetic` was trained on, [m, D].
        near: Distances from synthetic rows to their nearest training rows, where they are known.
    """
    near = nearest(synthetic, training) if near is None else near
    return float(near[:, 0].cpu().numpy().mean())


def memorization_ratio(synthetic: Rows, training: Rows, threshold: float = 1 / 3, near: Tensor | None = None) -> float:
    """Share of generated images that are copies: far nearer to one training image than to any other.

    A copy has `d1 < threshold * d2`, with d1 and d2 the distances to the two nearest distinct training images
    (arXiv 2505.17638). Training images are de-duplicated first: if its source were there twice, d1 = d2 and a
    perfect copy would go unseen.

    Args:
        synthetic: [n, D].
        training: [m, D].
        threshold: In (0, 1].
        near: Distances from synthetic rows to their two nearest training rows, where they are known.

    Raises:
        TooFewRows: if there are fewer than 2 distinct training images.
    """
    rows, training = two_sets(synthetic, training)
    distinct = distinct_rows(training)
    if near is None or len(distinct) < len(training):
        near = nearest(rows, distinct, k=2)
    return float((near[:, 0] < threshold * near[:, 1]).double().mean())
