"""A world with a known answer: the loop around a Gaussian model, and the exact law of its variance.

Scenarios and selectors are those of the real loop, only the model is another: where a curve of
`gaussian_loop` leaves its law, the bookkeeping is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from autophagy.common.samples import REAL, origin_generation, sample_ids, sample_index
from autophagy.common.seeds import rng_for
from autophagy.scenarios import (
    Accumulate,
    AccumulateSubsample,
    Augment,
    ConstantMix,
    FreshMix,
    Pool,
    Scenario,
    make_scenario,
    num_candidates,
)
from autophagy.selection import Candidates, make_selector


def gaussian_loop(
    scenario: Mapping[str, Any],
    selection: Mapping[str, Any],
    *,
    dim: int,
    num_real: int,
    budget: int,
    keep_ratio: float,
    generations: int,
    seed: int,
) -> np.ndarray:
    """Variance along one self-consuming loop of Gaussians.

    Every generation fits mean and full covariance by maximum likelihood (dividing by n) to what the scenario
    and the selector give it. The truth is N(0, I). What a selector may look at is what an image of the real
    loop would have, see `_candidates`.

    Args:
        scenario: `{"kind": ...}`, see `make_scenario`.
        selection: `{"strategy": ...}`, see `make_selector`.
        dim: dimension of the points.
        num_real: size of the fixed real set, on which generation 0 is fitted.
        budget: points each later generation is fitted on.
        keep_ratio: in (0, 1]; ceil(budget / keep_ratio) points are drawn from every fit.
        generations: number of generations after generation 0.
        seed: identity of the loop.

    Returns:
        float64 [generations + 1], trace of the fitted covariance over the true one (dim).

    Raises:
        UserError: bad scenario or selection.
    """
    rule, selector = make_scenario(scenario), make_selector(selection)
    count = num_candidates(budget, keep_ratio)
    num_fresh = rule.num_fresh(generations, count)
    num_truth = num_real + num_fresh

    points = np.empty((num_truth + generations * count, dim))  # R, fresh, S_0, S_1, ...
    points[:num_truth] = rng_for(seed, "real").standard_normal((num_truth, dim))
    real, fresh = np.split(sample_ids(REAL, 0, num_truth), [num_real])
    synthetic: list[np.ndarray] = []

    mean, covariance = _fit(points[:num_real])
    trace = [np.trace(covariance)]
    reference = _candidates(real, points[:num_real])
    for k in range(1, generations + 1):
        synthetic.append(sample_ids(k - 1, 0, count))
        noise = rng_for(seed, "generate", k - 1).standard_normal((count, dim))
        points[_rows(synthetic[-1], num_truth, count)] = mean + noise @ _root(covariance)
        ids = rule.candidates(Pool(real, fresh, tuple(synthetic)), rng_for(seed, "candidates", k))
        candidates = replace(_candidates(ids, points[_rows(ids, num_truth, count)]), reference=reference)
        kept = selector.select(candidates, rule.num_keep(ids.size, budget), rng_for(seed, "select", k))
        mean, covariance = _fit(points[_rows(ids[kept], num_truth, count)])
        trace.append(np.trace(covariance))
    return np.array(trace) / dim


def expected_variance_ratio(
    scenario: Mapping[str, Any], *, num_real: int, budget: int, keep_ratio: float, generations: int
) -> np.ndarray:
    """Exact expectation of `gaussian_loop` under random selection, for any dimension.

    Holds for `random` in every scenario, for `none` in `replace`, and for every selector where all
    candidates are kept. Under `replace` it is (1 - 1/num_real) (1 - 1/budget)^k.

    Derivation (ours). Per coordinate, let d_g = E[x^2] in group g (R, S_0, S_1, ...) and m_gh = E[x y] for
    two different points of groups g and h; points within a group are exchangeable. n of the T candidates are
    chosen without looking at them. Let a be the mean of d over the candidates and b the mean of m over their
    pairs. Then the fitted mean mu has E[mu^2] = a/n + (1 - 1/n) b, and the fitted variance has expectation a
    - E[mu^2] = (1 - 1/n)(a - b). Points of the next group are mu plus independent noise of that variance:
    there d = a and m = E[mu^2], and m between it and a group h is E[mu y], y in h, the mean over the
    candidates x of E[x y], with x = y for a share 1/N_h of those drawn from h (N_h its size). Fresh real
    images are drawn from a real group of infinite size, so that the law never meets the same one twice.

    Returns:
        float64 [generations + 1].

    Raises:
        UserError: bad scenario.
    """
    rule = make_scenario(scenario)
    count = num_candidates(budget, keep_ratio)
    groups = generations + 1  # real, S_0, S_1, ...
    size = np.full(groups, float(count))
    size[0] = np.inf if isinstance(rule, FreshMix) else num_real
    d, m = np.ones(groups), np.zeros((groups, groups))
    ratio: list[float] = []
    for k in range(generations + 1):
        drawn = np.zeros(groups)
        drawn[: k + 1] = _drawn(rule, num_real, count, k)
        total = drawn.sum()
        n = total if k == 0 or isinstance(rule, Accumulate) else min(budget, total)
        a = drawn @ d / total
        b = (drawn @ m @ drawn - drawn @ np.diag(m)) / max(total * (total - 1), 1)
        ratio.append((1 - 1 / n) * (a - b))
        if k < generations:
            with_group = (drawn @ m + drawn / size * (d - np.diag(m))) / total
            m[k + 1, : k + 1] = m[: k + 1, k + 1] = with_group[: k + 1]
            d[k + 1], m[k + 1, k + 1] = a, a / n + (1 - 1 / n) * b
    return np.array(ratio)


def _drawn(scenario: Scenario, num_real: int, count: int, generation: int) -> np.ndarray:
    """Candidates by group (real, S_0 .. S_{k-1}), counted anew so that the law can contradict the loop."""
    drawn = np.zeros(generation + 1)
    drawn[-1] = count
    if generation == 0 or isinstance(scenario, Augment):
        drawn[0] = num_real
    elif isinstance(scenario, Accumulate | AccumulateSubsample):
        drawn[:] = [num_real] + [count] * generation
    elif isinstance(scenario, FreshMix | ConstantMix):
        share = round(scenario.real_fraction * count)
        drawn[0] = share if isinstance(scenario, FreshMix) else min(share, num_real)
        drawn[-1] -= drawn[0]
    return drawn


def _rows(ids: np.ndarray, num_truth: int, count: int) -> np.ndarray:
    """Rows of the table of points: those from the truth first, then `count` for every generation."""
    origin, index = origin_generation(ids), sample_index(ids)
    return np.where(origin == REAL, index, num_truth + origin * count + index)


def _candidates(ids: np.ndarray, x: np.ndarray) -> Candidates:
    """Points [n, dim] with all columns of an image.

    Features and latents are the points themselves; pixels cut them at 4 standard deviations and round them to
    256 values. All labels are 0, and the confidence is the likelihood under the truth relative to the mode,
    exp(-|x|^2 / 2). The denoiser that is exact for the truth predicts the noise of a x + s e (a^2 + s^2 = 1) with
    error a^2 (a^2 dim + s^2 |x|^2), and on its deterministic trajectory, where a x + s e stays the same, x_0 with
    variance proportional to |x|^2: denoising error and trajectory variance are the mean square of x.
    """
    x = x.astype(np.float32)
    squares, generation = np.square(x), origin_generation(ids)
    return Candidates(
        sample_id=ids,
        generation=generation,
        label=np.zeros(ids.size, dtype=np.int64),
        features=x,
        confidence=np.exp(-0.5 * squares.sum(axis=1)),
        latent=x,
        pixels=((x.clip(-4, 4) + 4) * (255 / 8)).round().astype(np.uint8),
        denoising_error=squares.mean(axis=1),
        trajectory_variance=np.where(generation == REAL, np.float32(np.nan), squares.mean(axis=1)),
    )


def _fit(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum-likelihood mean [dim] and covariance [dim, dim] of points [n, dim]."""
    mean = x.mean(axis=0)
    centred = x - mean
    return mean, centred.T @ centred / len(x)


def _root(covariance: np.ndarray) -> np.ndarray:
    """A matrix A with A^T A = covariance, [dim, dim]; eigenvalues, because collapse makes it singular."""
    values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(values.clip(min=0))[:, None] * vectors.T
