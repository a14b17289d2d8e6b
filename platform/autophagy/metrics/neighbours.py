"""Nearest neighbours and balls, as fast as a matrix product and as exact as a subtraction, on any device.

A matrix product gives squared distances with a rounding error that has a bound. So it gives lower bounds, and they
tell which few pairs can matter; those are computed again by subtraction in float64. Identical rows are therefore at
distance exactly 0, a point on the rim of a closed ball is inside it, and block size, precision of the product and
number of threads change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from autophagy.metrics.rows import Rows, TooFewRows, as_rows, two_sets

_BLOCK_ELEMENTS = 1 << 22  # numbers held at a time: 32 MiB in float64
_SPARE = 8  # pairs of each row computed exactly beyond the k that are asked for
_CHUNK = 64  # numbers of which the least is found first


def nearest_distances(x: Rows, y: Rows | None = None, k: int = 1) -> np.ndarray:
    """Euclidean distances from each row of `x` to its `k` nearest rows of `y`, ascending.

    Args:
        x: [n, D].
        y: [m, D]; None looks among the other rows of `x` (a row is not its own neighbour, its copies are).
        k: Number of neighbours, at least 1.

    Returns:
        float64 [n, k].

    Raises:
        TooFewRows: if a row has fewer than `k` neighbours.
    """
    return nearest(x, y, k).cpu().numpy()


def nearest(x: Rows, y: Rows | None = None, k: int = 1) -> Tensor:
    """`nearest_distances` as a tensor on the device of `x`."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    among_itself = y is None
    if y is None:
        points = others = as_rows(x)
    else:
        points, others = two_sets(x, y)
    if len(others) - among_itself < k:
        raise TooFewRows(f"need {k} neighbours, but there are only {len(others) - among_itself}")
    found = points.new_empty((len(points), k))
    rows = torch.arange(len(points), device=points.device)
    if _float32_is_exact_enough(points):
        rows = _search(points, others, among_itself, rows, found, torch.float32)
    if len(rows):
        _search(points, others, among_itself, rows, found, torch.float64)
    return found


def ball_blocks(x: Tensor, y: Tensor, radius_x: Tensor, radius_y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Which rows of `y` lie in the closed balls around rows of `x`, and the other way round, block by block.

    Args:
        x: float64 [n, D].
        y: float64 [m, D].
        radius_x: Radius of the ball around each row of `x`, [n], from `nearest`.
        radius_y: Radius of the ball around each row of `y`, [m], likewise.

    Yields:
        For the next rows of `x`: bool [rows, m], `y_j` is in the ball of `x_i`; bool [rows, m], `x_i` is in the
        ball of `y_j`.
    """
    dtype = torch.float32 if _float32_is_exact_enough(x) else torch.float64
    bounds = _LowerBounds(x, y, dtype)
    (least_x, most_x), (least_y, most_y) = (bounds.around(bounds.squared(radius)) for radius in (radius_x, radius_y))
    size = max(1, _BLOCK_ELEMENTS // len(y))
    for rows in torch.arange(len(x), device=x.device).split(size):
        lower = bounds.block(rows)
        in_x, in_y = lower <= most_x[rows, None], lower <= most_y
        lower += bounds.margin(rows)  # an upper bound now
        close = (in_x & (lower >= least_x[rows, None])) | (in_y & (lower >= least_y))
        i, j = close.nonzero(as_tuple=True)
        exact = _pair_distances(x, rows[i], y, j)
        in_x[i, j] = exact <= radius_x[rows[i]]
        in_y[i, j] = exact <= radius_y[j]
        yield in_x, in_y


class _LowerBounds:
    """Lower bounds on the squared distances between rows of x [n, D] and of y [m, D], from products in `dtype`.

    `|a|^2 - 2 a.b + |b|^2` is one inner product of D + 2 terms, of absolute sum at most `2 (|a|^2 + |b|^2)`. Its
    rounding error is at most `(D + 2) eps` of `|a|^2 + |b|^2`, in whatever order it is summed. So squared norms that
    are smaller by the part `2 (D + 8) eps`, enough for all other rounding too, make the result a lower bound.
    """

    def __init__(self, x: Tensor, y: Tensor, dtype: torch.dtype) -> None:
        centre = y.mean(dim=0)  # large common offsets would cost digits
        centred_y = y - centre
        centred_x = centred_y if x is y else x - centre
        largest = max(float(end.abs()) for z in (centred_x, centred_y) for end in torch.aminmax(z))
        # A power of two, so that nothing is rounded; with all coordinates in (-2, 2) nothing overflows.
        self._scale = math.ldexp(1.0, math.frexp(largest)[1] - 1)
        norm_x, self._error_x = self._norms(centred_x, dtype)
        norm_y, self._error_y = self._norms(centred_y, dtype)
        ones = [norm.new_ones(len(norm), 1) for norm in (norm_x, norm_y)]
        self._x = torch.cat([(centred_x * (-2 / self._scale)).to(dtype), norm_x, ones[0]], dim=1)
        self._y = torch.cat([(centred_y / self._scale).to(dtype), ones[1], norm_y], dim=1)

    def _norms(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Squared norms made smaller by their part of the error, in `dtype` [n, 1], and that part, [n, 1]."""
        width, number = x.shape[1], torch.finfo(dtype)
        norms = torch.linalg.vector_norm(x, dim=1, keepdim=True).div_(self._scale).square_()
        error = 2 * (width + 8) * number.eps * norms + 4 * width * number.tiny  # tiny: for underflow
        return (norms - error).to(dtype), error

    def block(self, rows: Tensor) -> Tensor:
        """Lower bounds for these rows of x, [rows, m], in units of `squared`."""
        return self._x[rows] @ self._y.T

    def margin(self, rows: Tensor) -> Tensor:
        """What to add to make them upper bounds, [rows, 1]."""
        return (2 * (self._error_x[rows] + self._error_y.max())).to(self._x.dtype)

    def around(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers below and above, in the type of the bounds."""
        near, far = squared.to(self._x.dtype), squared.new_tensor(math.inf, dtype=self._x.dtype)
        return near.nextafter(-far), near.nextafter(far)

    def squared(self, distance: Tensor) -> Tensor:
        """Squares of distances, in the units of the bounds."""
        return (distance / self._scale).square()


def _float32_is_exact_enough(x: Tensor) -> bool:
    """Whether float32 products are rounded as the bound says: elsewhere, or if told so, torch may use fewer digits."""
    return x.is_cpu and torch.get_float32_matmul_precision() == "highest"


def _search(x: Tensor, y: Tensor, among_itself: bool, rows: Tensor, found: Tensor, dtype: torch.dtype) -> Tensor:
    """Fill `found` [n, k] at these rows of x with the distances to the nearest rows of y.

    Returns:
        The rows where bounds from products in `dtype` cannot prove it; none for float64, which looks at every pair
        that may matter.
    """
    k = found.shape[1]
    num = min(k + _SPARE, len(y))
    bounds = _LowerBounds(x, y, dtype)
    unproven = []
    for block in rows.split(max(1, _BLOCK_ELEMENTS // max(len(y), num * x.shape[1]))):
        lower = bounds.block(block)
        if among_itself:
            lower[torch.arange(len(block), device=block.device), block] = math.inf
        least, index = _least(lower, num)
        exact = _distances(x[block, None], y[index])[:, 0]
        found[block] = exact.masked_fill_(least.isinf(), math.inf).topk(k, largest=False).values
        limit = bounds.squared(found[block, -1])
        open_rows = (limit > least[:, -1].clamp_min(0)).nonzero()[:, 0] if num < len(y) else block[:0]
        if dtype == torch.float64:
            i, j = (lower[open_rows] <= limit[open_rows, None]).nonzero(as_tuple=True)
            exact = x.new_full((len(open_rows), len(y)), math.inf)
            exact[i, j] = _pair_distances(x, block[open_rows][i], y, j)
            found[block[open_rows]] = exact.topk(k, largest=False).values
        else:
            unproven.append(block[open_rows])
    return torch.cat(unproven) if unproven else rows[:0]


def _least(values: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The `num` least numbers of each row, ascending, and where they stand, [n, num] each.

    They lie in the chunks with the `num` least minima: only these are sorted.
    """
    width = values.shape[1] // _CHUNK * _CHUNK
    if width < 2 * num * _CHUNK:
        return values.topk(num, largest=False)
    chunks = values[:, :width].unflatten(1, (-1, _CHUNK)).amin(dim=2).topk(num, largest=False, sorted=False).indices
    inside = torch.arange(_CHUNK, device=values.device)
    index = (chunks[:, :, None] * _CHUNK + inside).flatten(1)
    rest = torch.arange(width, values.shape[1], device=values.device).expand(len(values), -1)
    index = torch.cat([index, rest], dim=1)
    least, place = values.gather(1, index).topk(num, largest=False)
    return least, index.gather(1, place)


def _pair_distances(x: Tensor, i: Tensor, y: Tensor, j: Tensor) -> Tensor:
    """Distances between x[i] and y[j], [pairs]."""
    distances = x.new_empty(len(i))
    size = max(1, _BLOCK_ELEMENTS // x.shape[1])
    for start in range(0, len(i), size):
        pairs = slice(start, start + size)
        distances[pairs] = _distances(x[i[pairs], None], y[j[pairs], None])[:, 0, 0]
    return distances


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Distances between rows of each x [b, p, D] and y [b, q, D] by subtraction, [b, p, q].

    Each pair is summed by itself in a fixed order: the same pair has the same bits, whatever stands beside it.
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
