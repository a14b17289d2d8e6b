"""Distances between two distributions, each given by samples: Frechet, kernel (MMD), class histogram."""

from __future__ import annotations

import numpy as np

from autophagy.metrics.rows import TooFewRows, two_sets

_BLOCK_ELEMENTS = 1 << 21  # kernel values held at a time: 16 MiB


def frechet_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Frechet distance between the Gaussians fitted to two sets of features, the FID if they are Inception's.

    `|mu_r - mu_s|^2 + tr C_r + tr C_s - 2 tr (C_r C_s)^(1/2)` with unbiased covariances (Heusel et al. 2017).
    Biased in the number of samples: compare only values from equal numbers.

    Args:
        real: [n, D].
        synthetic: [m, D].

    Returns:
        The distance (squared, as is usual), at least 0.

    Raises:
        TooFewRows: if a set has fewer than 2 rows.
    """
    real, synthetic = two_sets(real, synthetic, at_least=2)
    mean_gap = real.mean(axis=0) - synthetic.mean(axis=0)
    root_real, root_synthetic = _covariance_root(real), _covariance_root(synthetic)
    # With C = R'R, the eigenvalues of (C_r C_s)^(1/2) are the singular values of R_r R_s': never negative.
    cross = np.linalg.svd(root_real @ root_synthetic.T, compute_uv=False).sum()
    distance = mean_gap @ mean_gap + (root_real**2).sum() + (root_synthetic**2).sum() - 2 * cross
    return max(0.0, float(distance))


def _covariance_root(x: np.ndarray) -> np.ndarray:
    """R [min(n, D), D] with R'R the covariance of `x` [n, D]."""
    return np.asarray(np.linalg.qr((x - x.mean(axis=0)) / np.sqrt(len(x) - 1), mode="r"))


def kernel_distance(
    real: np.ndarray,
    synthetic: np.ndarray,
    *,
    num_subsets: int = 100,
    subset_size: int = 1000,
    seed: int | np.random.Generator = 0,
) -> tuple[float, float]:
    """Squared maximum mean discrepancy with kernel `(x.y / D + 1)^3`, the KID if features are Inception's.

    Mean and standard deviation of the unbiased estimate over random subsets (Binkowski et al. 2018). Subsets
    as large as both sets are all the same, and the standard deviation is then 0; subsets of half of each set
    make it the standard error of the distance between the whole sets.

    Args:
        real: [n, D].
        synthetic: [m, D].
        num_subsets: Number of subsets.
        subset_size: Rows drawn from each set, without replacement; at most n and m.
        seed: A seed or a generator.

    Returns:
        Mean and standard deviation; the mean may be slightly negative.

    Raises:
        TooFewRows: if a subset has fewer than 2 rows.
    """
    real, synthetic = two_sets(real, synthetic)
    size = min(subset_size, len(real), len(synthetic))
    if size < 2:
        raise TooFewRows(f"need subsets of at least 2 rows, got {size}")
    rng = np.random.default_rng(seed)
    in_real = _subsets(rng, len(real), num_subsets, size)
    in_synthetic = _subsets(rng, len(synthetic), num_subsets, size)
    within = np.zeros(num_subsets)
    for x, members in ((real, in_real), (synthetic, in_synthetic)):
        of_itself = _kernel(np.einsum("ij,ij->i", x, x), x.shape[1])
        within += _kernel_sums(x, x, members, members) - of_itself @ members
    between = _kernel_sums(real, synthetic, in_real, in_synthetic)
    distances = within / (size * (size - 1)) - 2 * between / size**2
    return float(distances.mean()), float(distances.std())


def _subsets(rng: np.random.Generator, n: int, num_subsets: int, size: int) -> np.ndarray:
    """Indicators of random subsets as columns, float64 [n, num_subsets]."""
    members = np.zeros((n, num_subsets))
    for subset in range(num_subsets):
        members[rng.choice(n, size, replace=False), subset] = 1.0
    return members


def _kernel(products: np.ndarray, width: int) -> np.ndarray:
    """`(x.y / D + 1)^3` from inner products x.y."""
    base = products / width + 1.0
    return base * base * base


def _kernel_sums(x: np.ndarray, y: np.ndarray, in_x: np.ndarray, in_y: np.ndarray) -> np.ndarray:
    """Sum of the kernel over (subset of x) x (subset of y) for each column of the indicators, [num_subsets].

    The kernel matrix is made once, block by block, however many subsets are summed.
    """
    sums = np.zeros(in_x.shape[1])
    num_rows = max(1, _BLOCK_ELEMENTS // len(y))
    for start in range(0, len(x), num_rows):
        rows = slice(start, start + num_rows)
        sums += np.einsum("is,is->s", in_x[rows], _kernel(x[rows] @ y.T, x.shape[1]) @ in_y)
    return sums


def class_histogram_distance(labels: np.ndarray, reference_labels: np.ndarray) -> float:
    """Total variation distance between two class histograms: 0 for equal shares, 1 for no class in common.

    Args:
        labels: Integers [n]; negative ones are no class and are left out.
        reference_labels: Integers [m], likewise.

    Raises:
        TooFewRows: if a set has no labelled row.
    """
    first, second = np.asarray(labels), np.asarray(reference_labels)
    first, second = first[first >= 0], second[second >= 0]
    if not len(first) or not len(second):
        raise TooFewRows("need at least one label in each set")
    num_classes = int(max(first.max(), second.max())) + 1
    shares = [np.bincount(side, minlength=num_classes) / len(side) for side in (first, second)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
