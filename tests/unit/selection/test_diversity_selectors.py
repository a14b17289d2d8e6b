"""Greedy and threshold decay choose, index for index, what the plain loops over all distances choose."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from autophagy.common.errors import UserError
from autophagy.selection import Candidates, chosen_set, greedy, make_selector, threshold_decay

pytestmark = pytest.mark.filterwarnings("error")


def textbook_greedy(points, sample_id, num_keep, rng):
    chosen = [int(rng.integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < num_keep:
        nearest = np.minimum(nearest, cdist(points, points[chosen[-1:]], "sqeuclidean")[:, 0])
        nearest[chosen] = -1
        farthest = np.flatnonzero(nearest == nearest.max())
        chosen.append(int(farthest[sample_id[farthest].argmin()]))
    return chosen


def textbook_threshold_decay(points, num_keep, rng, tau0, decay):
    order = rng.permutation(len(points))
    tau = tau0
    if tau0 == "auto":
        tau = np.quantile(pdist(points[order[:2000]]), 0.9) if len(points) > 1 else 0.0
    accepted, left = [], list(order)
    while len(accepted) < num_keep:
        passed = left
        left = []
        for row in passed:
            distances = np.sqrt(cdist(points[row][None], points[accepted], "sqeuclidean")[0])
            (accepted if (distances > tau).all() else left).append(row)
        tau *= decay
        if len(left) and (cdist(points[left], points[accepted]).min(axis=1) == 0).all():
            accepted += left  # only copies are left
    return accepted[:num_keep]


def candidates_at(points, sample_id):
    n = len(points)
    nothing = np.full(n, np.nan, np.float32)
    return Candidates(sample_id, np.zeros(n, np.int32), np.full(n, -1), np.asarray(points, np.float32), nothing)


def choose(selection, points, sample_id, num_keep, seed):
    selector = make_selector(selection)
    return selector.select(candidates_at(points, sample_id), num_keep, np.random.default_rng(seed)).tolist()


@st.composite
def point_sets(draw):
    """Points [n, D], with ties, copies, offsets and sizes that strain the rounding."""
    n, width = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    points = {
        "normal": lambda: rng.standard_normal((n, width)),
        "grid": lambda: rng.integers(-2, 3, (n, width)),
        "tenths": lambda: rng.integers(-2, 3, (n, width)) / 10,
        "few": lambda: rng.standard_normal((3, width))[rng.integers(3, size=n)],
        "signs": lambda: rng.choice([-1, 1], (n, width)) * rng.standard_normal(width),  # many equal distances
        "clusters": lambda: rng.integers(3, size=(n, 1)) * 100 + rng.standard_normal((n, width)) / 1000,
        "outlier": lambda: rng.standard_normal((n, width)) * np.where(np.arange(n) == n // 2, 1e9, 1)[:, None],
        "line": lambda: np.arange(n)[:, None] * np.ones(width),
    }[draw(st.sampled_from(["normal", "grid", "tenths", "few", "signs", "clusters", "outlier", "line"]))]()
    scale, offset = draw(st.sampled_from([1.0, 1e-38, 1e-12, 1e28])), draw(st.sampled_from([0.0, 1.0, 1e4]))
    return (scale * (points + offset)).astype(np.float32), rng.permutation(n)


@st.composite
def small_blocks(draw):
    """Sizes at which 30 points take many steps."""
    return draw(st.sampled_from([1, 2, 5, 16])), draw(st.sampled_from([1, 7, 100]))


@given(point_sets(), small_blocks(), st.integers(0, 9), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_greedy_is_the_textbook_loop(point_set, blocks, seed, share):
    points, sample_id = point_set
    num_keep = max(1, round(share * len(points)))
    expected = textbook_greedy(points, sample_id, num_keep, np.random.default_rng(seed))
    assert choose({"strategy": "greedy"}, points, sample_id, num_keep, seed) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(greedy, "_BLOCK", blocks[0])
        patch.setattr(chosen_set, "_STEP", blocks[1])
        assert choose({"strategy": "greedy"}, points, sample_id, num_keep, seed) == expected


tau0s = st.one_of(st.just("auto"), st.sampled_from([0.1, 1.0, 2.0, 1e-44, 1e30]), st.floats(1e-3, 100))


@given(point_sets(), small_blocks(), st.integers(0, 9), st.floats(0, 1), tau0s, st.sampled_from([0.05, 0.5, 0.8, 0.95]))
@settings(max_examples=100, deadline=None)
def test_threshold_decay_is_the_textbook_loop(point_set, blocks, seed, share, tau0, decay):
    points, sample_id = point_set
    num_keep = max(1, round(share * len(points)))
    expected = textbook_threshold_decay(points, num_keep, np.random.default_rng(seed), tau0, decay)
    selection = {"strategy": "threshold_decay", "tau0": tau0, "decay": decay}
    assert choose(selection, points, sample_id, num_keep, seed) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold_decay, "_BLOCK", blocks[0])
        patch.setattr(chosen_set, "_STEP", blocks[1])
        assert choose(selection, points, sample_id, num_keep, seed) == expected


@pytest.mark.parametrize("values", ["normal", "pixels", "bits"])
def test_both_are_the_textbook_loops_at_sizes_of_many_blocks(values):
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 16))
    points = (centres[rng.integers(20, size=800)] + 0.3 * rng.standard_normal((800, 16))).astype(np.float32)
    if values == "pixels":
        points = np.clip(np.rint(128 + 40 * points), 0, 255)
    elif values == "bits":
        points = (points > 0).astype(np.float32)
    sample_id = rng.permutation(800)
    expected = textbook_greedy(points, sample_id, 200, np.random.default_rng(1))
    assert choose({"strategy": "greedy"}, points, sample_id, 200, 1) == expected
    expected = textbook_threshold_decay(points, 200, np.random.default_rng(1), "auto", 0.95)
    assert choose({"strategy": "threshold_decay"}, points, sample_id, 200, 1) == expected


@pytest.mark.parametrize("width", [1, 2, 3, 8, 24, 384])
def test_a_distance_has_the_same_bits_whatever_it_is_computed_with(width):
    points = np.random.default_rng(0).standard_normal((23, width)).astype(np.float32)
    everything = cdist(points, points, "sqeuclidean")
    for i, j in itertools.product(range(23), repeat=2):
        assert chosen_set.squared_distances(points[[i]], points[[j]])[0, 0] == everything[i, j]
    for size in range(1, 23):
        np.testing.assert_array_equal(chosen_set.squared_distances(points[:size], points), everything[:size])


@given(point_sets())
@settings(max_examples=100, deadline=None)
def test_the_bound_on_the_error_holds(point_set):
    points, _ = point_set
    squared, error = chosen_set.PointCloud(points).between(np.arange(len(points)), np.arange(len(points)))
    assert np.abs(squared - cdist(points, points, "sqeuclidean")).max() <= error


@given(point_sets(), st.sampled_from([0.1, 0.5, 0.9]))
@settings(max_examples=100, deadline=None)
def test_the_quantile_of_distances_is_exact(point_set, quantile):
    points, _ = point_set
    expected = np.quantile(pdist(points), quantile) if len(points) > 1 else 0.0
    assert threshold_decay.distance_quantile(points, quantile) == expected


@pytest.mark.parametrize("tau", [0.0, 5e-324, 1e-200, 1e-160, 0.1, 1.0, 2**0.5, 60.0, 1e30, 1e200])
def test_the_limit_is_the_largest_square_that_does_not_exceed_tau(tau):
    limit = threshold_decay._squared_limit(tau)
    assert math.sqrt(limit) <= tau < math.sqrt(math.nextafter(limit, math.inf))


@pytest.mark.parametrize("strategy", ["greedy", "threshold_decay"])
def test_copies_come_last(strategy):
    points = np.repeat(np.random.default_rng(0).standard_normal((10, 4)), 5, axis=0)
    kept = choose({"strategy": strategy}, points, np.arange(50), 50, seed=3)
    assert sorted(row // 5 for row in kept[:10]) == list(range(10))
    if strategy == "greedy":
        assert kept[10:] == sorted(kept[10:])


def test_one_point_and_one_place():
    points = np.random.default_rng(0).standard_normal((5, 4))
    for strategy in ("greedy", "threshold_decay"):
        assert choose({"strategy": strategy}, points[:1], np.arange(1), 1, seed=0) == [0]
    assert choose({"strategy": "greedy"}, points, np.arange(5), 1, seed=6) == [np.random.default_rng(6).integers(5)]


def test_greedy_never_finds_a_farther_one_later():
    points = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    kept = choose({"strategy": "greedy"}, points, np.arange(300), 300, seed=0)
    gain = [cdist(points[[row]], points[kept[:i]]).min() for i, row in enumerate(kept) if i]
    assert (np.diff(gain) <= 0).all()


def test_a_threshold_below_every_distance_is_random():
    points = np.random.default_rng(0).standard_normal((50, 5))
    kept = choose({"strategy": "threshold_decay", "tau0": 1e-9}, points, np.arange(50), 20, seed=4)
    assert kept == np.random.default_rng(4).permutation(50)[:20].tolist()


def test_a_slower_decay_spreads_wider():
    points = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    closest = []
    for decay in (0.1, 0.8, 0.99):
        kept = choose({"strategy": "threshold_decay", "decay": decay}, points, np.arange(200), 40, seed=0)
        closest.append(pdist(points[kept]).min())
    assert closest == sorted(closest)
    assert closest[-1] > 2 * closest[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tau0": 0}, r"selection\.tau0 = 0: should be 'auto' or greater than 0"),
        ({"tau0": "median"}, r"selection\.tau0 = 'median': should be 'auto' or"),
        ({"tau0": float("inf")}, r"selection\.tau0 = inf: should be 'auto' or a finite number"),
        ({"decay": 1}, r"selection\.decay = 1: should be less than 1"),
        ({"decay": 0.0}, r"selection\.decay = 0\.0: should be greater than 0"),
    ],
)
def test_a_bad_threshold_is_one_line(config, message):
    with pytest.raises(UserError, match=message) as error:
        make_selector({"strategy": "threshold_decay", **config})
    assert "\n" not in str(error.value)
