"""Labels for data that have none: clusters of plain vectors, and their names where some classes are known."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from autophagy.common.samples import UNLABELLED

if TYPE_CHECKING:
    import scipy.sparse

_BLOCK_ROWS = 512  # rows coded, or looked up, at a time: with 5,000 points 20 MB of correlations
_BLOCK_COLUMNS = 2048  # of a product in float64, so that wide latents are never copied whole
_NUM_INITS = 10  # of k-means
_SPARE_VECTORS = 5  # of the eigensolver, which finds its last ones slowly
_MAX_ITERATIONS = 300  # of the eigensolver
_EIGEN_TOLERANCE = 1e-5
_ROUNDING = 1e-10  # of cosines and codes: what differs by less is equal, or machines would choose differently


def ssc_omp(
    x: np.ndarray,
    num_clusters: int,
    rng: np.random.Generator,
    *,
    num_nonzero: int = 10,
    tolerance: float = 1e-6,
    most: int = 5000,
) -> np.ndarray:
    """Sparse subspace clustering by orthogonal matching pursuit (You, Robinson and Vidal, CVPR 2016).

    Points are scaled to length 1. Each is coded by a few others (`self_expression`), the affinity is `|C| + |C|^T`,
    and normalised spectral clustering cuts it. If it has no fewer parts than clusters, the parts are the clusters, the
    nearest joined where they are too many. Points linked to no other, such as zeros, get label 0. Of several points on
    one line through 0 one is clustered. Time grows with the square of `min(n, most)`.

    Args:
        x: Finite, [n, D].
        num_clusters: At least 1. If there are no more distinct points, or lines, than that, each is a cluster.
        rng: Draws the subset, and starts eigensolver and k-means.
        num_nonzero: Most others in a code.
        tolerance: Squared length of a residual, of points of length 1, that counts as explained.
        most: Of more points a random subset of this size is clustered; each other point joins its nearest
            point of the subset, by angle up to sign, since a subspace has none.

    Returns:
        int64 [n], labels in [0, num_clusters) in no particular order.

    Raises:
        ValueError: `x` is not a finite [n, D], or `num_clusters` is less than 1.
    """
    from scipy.sparse.csgraph import connected_components

    x = _checked(x, num_clusters)
    if len(x) > most:
        subset = np.sort(rng.choice(len(x), most, replace=False))
        inside = ssc_omp(x[subset], num_clusters, rng, num_nonzero=num_nonzero, tolerance=tolerance, most=most)
        labels = inside[_nearest(x, x[subset])]
        labels[subset] = inside
        return labels
    # A point and its copy would explain each other, and the graph fall into pairs.
    distinct, which = np.unique(x, axis=0, return_inverse=True)
    which = which.reshape(-1)
    if len(distinct) <= num_clusters:
        return which.astype(np.int64)
    code = abs(self_expression(distinct, num_nonzero, tolerance))
    # So would multiples, and copies that are none to the last bit: one other alone explains them, with a weight of 1.
    alone = code.multiply((np.diff(code.indptr) == 1)[:, None]).tocsr()
    line = connected_components(alone >= 1 - _ROUNDING, directed=False)[1]
    one = distinct[np.unique(line, return_index=True)[1]]
    if len(one) < len(distinct):
        return ssc_omp(one, num_clusters, rng, num_nonzero=num_nonzero, tolerance=tolerance, most=most)[line[which]]
    return _spectral(code + code.T, distinct, num_clusters, rng)[which]


def self_expression(x: np.ndarray, num_nonzero: int = 10, tolerance: float = 1e-6) -> scipy.sparse.csr_matrix:
    """Each point as a combination of a few others, by orthogonal matching pursuit on points of length 1.

    A code is complete when it has `num_nonzero` others, when the squared residual is at most `tolerance`, or
    when no other point correlates with more than this share of it. Of equals, but for rounding, the first is taken.

    Args:
        x: [n, D].
        num_nonzero: Most others in a code.
        tolerance: Squared residual, in [0, 1].

    Returns:
        float64 [n, n] with a zero diagonal and at most `num_nonzero` entries in each row.
    """
    from scipy.sparse import vstack

    gram = _cosines(x, x)
    blocks = [np.arange(start, min(start + _BLOCK_ROWS, len(x))) for start in range(0, len(x), _BLOCK_ROWS)]
    return vstack([_code(gram, rows, num_nonzero, tolerance) for rows in blocks], format="csr")


def kmeans_labels(x: np.ndarray, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """k-means with 10 starts, every dimension standardised that varies by more than rounding.

    Args:
        x: Finite, [n, D].
        num_clusters: At least 1; of fewer distinct points there are fewer clusters.
        rng: Seeds the starts.

    Returns:
        int64 [n], labels in [0, num_clusters) in no particular order.

    Raises:
        ValueError: `x` is not a finite [n, D], or `num_clusters` is less than 1.
    """
    x = _checked(x, num_clusters)
    if not len(x):
        return np.empty(0, dtype=np.int64)
    scale, rounding = x.std(axis=0), 4 * np.finfo(x.dtype).eps * np.abs(x).max(axis=0)
    return _kmeans((x - x.mean(axis=0)) / np.where(scale > rounding, scale, 1.0), num_clusters, rng)


def match_clusters(clusters: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Clusters renamed so that as many rows as possible agree with their class (Hungarian method).

    No two clusters get one name while there are names left. If there are fewer clusters than classes, some
    names stay unused. If there are more, those left over take the commonest class among their own rows, or
    UNLABELLED where none of these has a class.

    Args:
        clusters: int [n].
        classes: int [n], in [0, num_classes); rows that are UNLABELLED have no say, and are renamed as the others.
        num_classes: At least 1.

    Returns:
        int64 [n], names in [0, num_classes), or UNLABELLED.

    Raises:
        ValueError: different lengths, or a class out of range.
    """
    from scipy.optimize import linear_sum_assignment

    clusters, classes = np.asarray(clusters), np.asarray(classes)
    if clusters.shape != classes.shape or clusters.ndim != 1:
        raise ValueError(f"need one class for each row, got shapes {clusters.shape} and {classes.shape}")
    known = classes != UNLABELLED
    if known.any() and not 0 <= classes[known].min() <= classes[known].max() < num_classes:
        raise ValueError(f"classes must be in [0, {num_classes}) or {UNLABELLED}")
    found, which = np.unique(clusters, return_inverse=True)
    overlap = np.zeros((len(found), num_classes), dtype=np.int64)
    np.add.at(overlap, (which[known], classes[known]), 1)
    names = (
        np.where(overlap.any(axis=1), overlap.argmax(axis=1), UNLABELLED) if num_classes else np.full(len(found), -1)
    )
    matched, name = linear_sum_assignment(overlap, maximize=True)
    names[matched] = name
    return names[which].astype(np.int64)


def _checked(x: np.ndarray, num_clusters: int) -> np.ndarray:
    """`x` as a floating-point [n, D]."""
    x = np.asarray(x)
    x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ValueError(f"need finite points [n, D], got shape {x.shape}")
    if num_clusters < 1:
        raise ValueError(f"num_clusters must be at least 1, got {num_clusters}")
    return x


def _cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosines between the rows of `x` [n, D] and of `y` [m, D], float64 [n, m]; 0 where a row is zero."""
    products, square_x, square_y = np.zeros((len(x), len(y))), np.zeros(len(x)), np.zeros(len(y))
    for start in range(0, x.shape[1], _BLOCK_COLUMNS):
        columns = slice(start, start + _BLOCK_COLUMNS)
        a, b = x[:, columns].astype(np.float64), y[:, columns].astype(np.float64)
        products += a @ b.T
        square_x += np.einsum("ij,ij->i", a, a)
        square_y += np.einsum("ij,ij->i", b, b)
    products /= np.sqrt(np.where(square_x > 0, square_x, 1.0))[:, None]
    products /= np.sqrt(np.where(square_y > 0, square_y, 1.0))
    return products


def _nearest(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For each row of `x` the row of `y` of smallest angle up to sign, int64 [n]."""
    starts = range(0, len(x), _BLOCK_ROWS)
    return np.concatenate([_first_largest(np.abs(_cosines(x[i : i + _BLOCK_ROWS], y))) for i in starts])


def _first_largest(values: np.ndarray) -> np.ndarray:
    """`argmax` along the last axis, int64, for which values are equal if only rounding tells them apart."""
    return (values >= values.max(axis=-1, keepdims=True) - _ROUNDING).argmax(axis=-1)


def _code(gram: np.ndarray, rows: np.ndarray, num_nonzero: int, tolerance: float) -> scipy.sparse.csr_matrix:
    """The codes of some rows, all pursued at once; only inner products of points are needed, `gram` [n, n]."""
    support = np.zeros((len(rows), num_nonzero), dtype=np.int64)
    weight = np.zeros((len(rows), num_nonzero))
    residual = gram[rows, rows].copy()  # squared; 1, or 0 for a point at zero
    active = np.arange(len(rows))  # those whose code is not complete
    for size in range(num_nonzero):
        own, before = rows[active], support[active, :size]
        # r.x_j = x_i.x_j - sum_s c_s x_s.x_j for all j: no residual is ever formed.
        correlation = np.abs(gram[own] - _sparse(before, weight[active, :size], len(gram)) @ gram)
        correlation[np.arange(len(active)), own] = 0.0
        np.put_along_axis(correlation, before, 0.0, axis=1)
        best = _first_largest(correlation)
        gain = correlation[np.arange(len(active)), best] ** 2
        # The squared distance of a point from those chosen is at least gain / residual: the systems stay regular.
        goes_on = (residual[active] > tolerance) & (gain > tolerance * residual[active])
        active = active[goes_on]
        if not active.size:
            break
        support[active, size] = best[goes_on]
        chosen = support[active, : size + 1]
        target = gram[chosen, rows[active, None]]
        solved = np.linalg.solve(gram[chosen[:, :, None], chosen[:, None, :]], target[:, :, None])[:, :, 0]
        weight[active, : size + 1] = solved
        residual[active] = 1.0 - np.einsum("ij,ij->i", target, solved)
    code = _sparse(support, np.where(np.abs(weight) > _ROUNDING, weight, 0.0), len(gram))
    code.eliminate_zeros()
    return code


def _sparse(columns: np.ndarray, values: np.ndarray, width: int) -> scipy.sparse.csr_matrix:
    """Rows with these values [n, k] in these columns [n, k]."""
    from scipy.sparse import csr_matrix

    n, k = columns.shape
    return csr_matrix((values.ravel(), columns.ravel(), np.arange(n + 1) * k), shape=(n, width))


def _joined(part: np.ndarray, x: np.ndarray, num_clusters: int) -> np.ndarray:
    """Parts [n] of a graph of points x [n, D], two at a time joined until they are `num_clusters`, int64 [n].

    The graph does not say which belong together: each has an eigenvalue of 1, and of those vectors any basis will do.
    Those are joined that cost least by Ward's criterion (1963), `(1 - |cosine|) ab / (a + b)` for a and b points, with
    the largest cosine between the two parts instead of that of their means, which up to sign points do not have.
    """
    size, order = np.bincount(part), np.argsort(part, kind="stable")
    starts = np.cumsum(size) - size
    cosines = np.maximum.reduceat(np.abs(_cosines(x[order], x[order])), starts, axis=0)
    apart = 1.0 - np.maximum.reduceat(cosines, starts, axis=1)
    np.fill_diagonal(apart, np.inf)
    gain = -apart / (1 / size[:, None] + 1 / size)
    for _ in range(len(size) - num_clusters):
        to, gone = divmod(int(_first_largest(gain.ravel())), len(size))
        apart[to] = apart[:, to] = np.minimum(apart[to], apart[gone])
        apart[gone] = apart[:, gone] = apart[to, to] = np.inf
        size[to] += size[gone]
        gain[to] = gain[:, to] = -apart[to] / (1 / size + 1 / size[to])
        gain[gone] = gain[:, gone] = -np.inf
        part = np.where(part == gone, to, part)
    return np.unique(part, return_inverse=True)[1]


def _spectral(graph: scipy.sparse.csr_matrix, x: np.ndarray, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Normalised spectral clustering (Ng, Jordan and Weiss 2001) of points x [n, D], int64 [n]; without any link 0."""
    from scipy.sparse import csgraph, diags

    degree = np.asarray(graph.sum(axis=1)).ravel()
    labels, linked = np.zeros(len(degree), dtype=np.int64), np.flatnonzero(degree > 0)
    if len(linked) <= num_clusters:
        labels[linked] = np.arange(len(linked))
        return labels
    affinity = graph[linked][:, linked]
    num_parts, part = csgraph.connected_components(affinity, directed=False)
    if num_parts >= num_clusters:
        labels[linked] = _joined(part, x[linked], num_clusters)
        return labels
    scale = 1.0 / np.sqrt(degree[linked])
    matrix = affinity.multiply(scale[:, None]).multiply(scale).tocsr()
    if num_parts > 1:  # of eigenvalues that several parts share, those of the first count as larger
        matrix = (matrix - diags(_EIGEN_TOLERANCE * part)).tocsr()
    vectors = _top_eigenvectors(matrix, num_clusters, rng)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    labels[linked] = _kmeans(vectors / np.where(length > 0, length, 1.0), num_clusters, rng)
    return labels


def _top_eigenvectors(matrix: scipy.sparse.csr_matrix, count: int, rng: np.random.Generator) -> np.ndarray:
    """Eigenvectors of the largest eigenvalues of a symmetric matrix [n, n], as columns [n, count]; count < n."""
    from scipy.sparse.linalg import lobpcg

    # In blocks, because a graph in several parts has several eigenvalues of 1, of which a Lanczos method may see one.
    start = rng.standard_normal((matrix.shape[0], count + min(count, _SPARE_VECTORS)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # points along a curve: eigenvalues crowd at 1, and any will do
        return lobpcg(matrix, start, largest=True, maxiter=_MAX_ITERATIONS, tol=_EIGEN_TOLERANCE)[1][:, :count]


def _kmeans(x: np.ndarray, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Labels by k-means, int64 [n], n >= 1."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    model = KMeans(min(num_clusters, len(x)), n_init=_NUM_INITS, random_state=int(rng.integers(1 << 31)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        return model.fit_predict(x).astype(np.int64)
