"""Each metric against a closed form, a naive implementation or another library."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from autophagy.metrics import distribution, neighbours
from autophagy.metrics.distribution import class_histogram_distance, frechet_distance, kernel_distance
from autophagy.metrics.entropy import duplicate_share, knn_entropy
from autophagy.metrics.manifold import density_coverage, manifold_scores, precision_recall
from autophagy.metrics.memorization import generalization_score, memorization_ratio
from autophagy.metrics.neighbours import nearest_distances
from autophagy.metrics.provenance import mean_age, origin_shares, real_share
from autophagy.metrics.rows import TooFewRows, as_rows, distinct_rows
from autophagy.metrics.structure import total_variance


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def exact_moments(rng, n, mean, deviation):
    """Rows whose sample mean and unbiased covariance are exactly `mean` and `diag(deviation^2)`."""
    x = rng.normal(size=(n, len(mean)))
    x -= x.mean(axis=0)
    q, _ = np.linalg.qr(x)
    return q * math.sqrt(n - 1) * np.asarray(deviation) + np.asarray(mean)


class Identity(torch.nn.Module):
    """A feature network for torchmetrics that takes features."""

    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features

    def forward(self, x):
        return x


# Nearest neighbours


@pytest.mark.parametrize("k", [1, 4])
def test_neighbours_agree_with_sklearn(rng, k):
    from sklearn.neighbors import NearestNeighbors

    x, y = rng.normal(size=(80, 6)), rng.normal(size=(120, 6))
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(y)
    np.testing.assert_allclose(nearest_distances(x, y, k), search.kneighbors(x)[0])
    np.testing.assert_allclose(nearest_distances(y, k=k), search.kneighbors()[0])


def test_identical_rows_are_at_distance_exactly_zero_far_from_the_origin(rng):
    y = (1e6 + rng.normal(size=(300, 64))).astype(np.float32)
    nearest = nearest_distances(y[::-1], y, 2)
    assert (nearest[:, 0] == 0).all()
    assert (nearest[:, 1] > 0).all()


def test_nearly_identical_rows_are_told_apart(rng):
    point = rng.normal(size=(1, 8))
    y = np.vstack([point + 1e-9 * rng.permutation(np.arange(1, 101))[:, None], point + 1e3])
    np.testing.assert_array_equal(nearest_distances(point, y, 3)[0], np.sort(cdist(point, y)[0])[:3])


@pytest.mark.parametrize("num_elements", [1, 700, 1 << 21])
def test_block_size_does_not_change_one_bit(rng, monkeypatch, num_elements):
    x, y = rng.normal(size=(90, 33)), rng.normal(size=(110, 33))
    y[:30] = x[:30]
    expected = nearest_distances(x, y, 3), manifold_scores(x, y, 3)
    monkeypatch.setattr(neighbours, "_BLOCK_ELEMENTS", num_elements)
    np.testing.assert_array_equal(nearest_distances(x, y, 3), expected[0])
    assert manifold_scores(x, y, 3) == expected[1]


def blobs(rng, n, spread):
    """Points in few places that are `spread` wide, some there many times."""
    x = rng.normal(size=(5, 12))[rng.integers(5, size=n)] + spread * rng.normal(size=(n, 12))
    x[: n // 4] = x[n // 2 : n // 2 + 3].repeat(n // 12, axis=0)
    return x


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6, 1e-13])
@pytest.mark.parametrize("outlier", [0.0, 1e6])
def test_what_the_product_cannot_tell_apart_is_subtracted(rng, spread, outlier):
    x, y = blobs(rng, 240, spread), blobs(rng, 360, spread)
    y[-1] += outlier
    for k in (1, 30):
        expected = np.sort(cdist(x, y))[:, :k]
        np.testing.assert_allclose(nearest_distances(x, y, k), expected, rtol=1e-14, atol=0)
    np.testing.assert_allclose(nearest_distances(y, k=2), np.sort(cdist(y, y))[:, 1:3], rtol=1e-14, atol=0)


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150])
def test_neighbours_of_very_large_and_very_small_features(rng, scale):
    x, y = rng.normal(size=(40, 5)), rng.normal(size=(50, 5))
    np.testing.assert_allclose(
        nearest_distances(scale * x, scale * y, 3), scale * nearest_distances(x, y, 3), rtol=1e-12
    )


def test_rows_from_read_only_memory_are_taken_as_they_are(rng, recwarn):
    x = rng.normal(size=(30, 4))
    x.flags.writeable = False
    assert total_variance(x) == pytest.approx(x.var(axis=0, ddof=1).sum())
    assert not recwarn.list
    writable = x.copy()
    assert as_rows(writable).data_ptr() == writable.ctypes.data


def test_a_row_is_not_its_own_neighbour_but_its_copies_are():
    x = np.array([[0.0], [0.0], [3.0]])
    np.testing.assert_array_equal(nearest_distances(x, k=2), [[0, 3], [0, 3], [3, 3]])


def test_neighbours_need_enough_rows_and_a_positive_k():
    x = np.zeros((3, 2))
    with pytest.raises(TooFewRows, match="need 3 neighbours, but there are only 2"):
        nearest_distances(x, k=3)
    with pytest.raises(TooFewRows):
        nearest_distances(x, x[:2], k=3)
    with pytest.raises(ValueError, match="k must be at least 1"):
        nearest_distances(x, k=0)


# Frechet distance


def test_frechet_distance_of_known_gaussians(rng):
    mean_r, mean_s = np.array([0.0, 1.0, -2.0]), np.array([3.0, 1.0, 0.0])
    dev_r, dev_s = np.array([1.0, 2.0, 0.5]), np.array([4.0, 2.0, 0.0])
    real, synthetic = exact_moments(rng, 50, mean_r, dev_r), exact_moments(rng, 70, mean_s, dev_s)
    expected = ((mean_r - mean_s) ** 2).sum() + ((dev_r - dev_s) ** 2).sum()
    assert frechet_distance(real, synthetic) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "width"), [(200, 16), (20, 48)], ids=["full rank", "fewer rows than features"])
def test_frechet_distance_agrees_with_torchmetrics(rng, n, width):
    from torchmetrics.image.fid import FrechetInceptionDistance

    real = rng.normal(size=(n, width))
    synthetic = rng.normal(size=(n + 10, width)) @ rng.normal(size=(width, width)) / 4 + 0.3
    fid = FrechetInceptionDistance(feature=Identity(width)).set_dtype(torch.float64)
    fid.update(torch.from_numpy(real), real=True)
    fid.update(torch.from_numpy(synthetic), real=False)
    assert frechet_distance(real, synthetic) == pytest.approx(float(fid.compute()), rel=1e-5)


def test_frechet_distance_of_constant_sets_is_the_distance_of_their_points():
    assert frechet_distance(np.zeros((4, 3)), np.full((5, 3), 2.0)) == pytest.approx(12.0)


def test_frechet_distance_keeps_its_digits_in_float32_far_from_the_origin(rng):
    x = rng.integers(-8, 8, size=(100, 4)).astype(np.float32)
    y = rng.integers(-8, 8, size=(100, 4)).astype(np.float32)
    assert frechet_distance(x + 2**16, y + 2**16) == pytest.approx(frechet_distance(x, y), rel=1e-9)


# Kernel distance


def naive_mmd(x, y):
    """The unbiased estimate as it is written, one kernel value at a time."""

    def kernel(a, b):
        return (float(np.dot(a, b)) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i, j in itertools.permutations(range(n), 2)) / (n * (n - 1))
    within_y = sum(kernel(y[i], y[j]) for i, j in itertools.permutations(range(m), 2)) / (m * (m - 1))
    between = sum(kernel(a, b) for a in x for b in y) / (n * m)
    return within_x + within_y - 2 * between


def test_kernel_distance_of_whole_sets_is_the_direct_sum(rng):
    real, synthetic = rng.normal(size=(9, 3)), 0.5 + rng.normal(size=(9, 3))
    mean, std = kernel_distance(real, synthetic)
    assert mean == pytest.approx(naive_mmd(real, synthetic))
    assert std == pytest.approx(0, abs=1e-12)


def test_kernel_distance_is_the_same_subset_by_subset_and_in_one_pass(rng):
    x, y = torch.from_numpy(rng.normal(size=(60, 4))), torch.from_numpy(rng.normal(size=(70, 4)))
    subsets = [distribution._subsets(rng, n, 12, 9) for n in (60, 70)]
    one_pass = distribution._sums_in_one_pass(x, y, *subsets)
    torch.testing.assert_close(distribution._sums_one_by_one(x, y, *subsets), one_pass, rtol=1e-12, atol=0)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
def test_kernel_distance_agrees_with_torchmetrics(rng):
    from torchmetrics.image.kid import KernelInceptionDistance

    real, synthetic = rng.normal(size=(300, 8)), 0.5 + rng.normal(size=(300, 8))
    # Subsets of all rows: the same ones, whoever draws them.
    kid = KernelInceptionDistance(feature=Identity(8), subsets=1, subset_size=300).set_dtype(torch.float64)
    kid.update(torch.from_numpy(real), real=True)
    kid.update(torch.from_numpy(synthetic), real=False)
    expected = float(kid.compute()[0])
    assert kernel_distance(real, synthetic)[0] == pytest.approx(expected, rel=1e-6)
    some = kernel_distance(real, synthetic, num_subsets=20, subset_size=30)  # fewer pairs than 300 x 300
    assert some[0] == pytest.approx(expected, abs=4 * some[1] / math.sqrt(20))


def test_kernel_distance_over_all_pairs_averages_to_the_whole(rng):
    real, synthetic = rng.normal(size=(6, 2)), 1 + rng.normal(size=(5, 2))
    pairs = [
        naive_mmd(real[list(i)], synthetic[list(j)])
        for i in itertools.combinations(range(6), 2)
        for j in itertools.combinations(range(5), 2)
    ]
    assert np.mean(pairs) == pytest.approx(naive_mmd(real, synthetic))  # each subset is unbiased
    mean, std = kernel_distance(real, synthetic, num_subsets=20_000, subset_size=2)
    assert mean == pytest.approx(np.mean(pairs), abs=4 * np.std(pairs) / math.sqrt(20_000))
    assert std == pytest.approx(np.std(pairs), rel=0.05)


def test_kernel_distance_is_unbiased_for_equal_laws(rng):
    values = [kernel_distance(rng.normal(size=(30, 4)), rng.normal(size=(30, 4)))[0] for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(len(values))
    assert min(values) < 0 < max(values)


def test_kernel_distance_depends_on_its_seed_only(rng):
    real, synthetic = rng.normal(size=(40, 4)), rng.normal(size=(50, 4))
    one, other = (kernel_distance(real, synthetic, subset_size=20, seed=seed) for seed in (1, 2))
    assert one == kernel_distance(real, synthetic, subset_size=20, seed=np.random.default_rng(1))
    assert one != other


# Manifold


def naive_manifold(real, synthetic, k):
    to_real, to_synthetic = cdist(real, real), cdist(synthetic, synthetic)
    radius_real, radius_synthetic = np.sort(to_real)[:, k], np.sort(to_synthetic)[:, k]
    between = cdist(real, synthetic)
    in_real, in_synthetic = between <= radius_real[:, None], between <= radius_synthetic
    return (
        in_real.any(axis=0).mean(),
        in_synthetic.any(axis=1).mean(),
        in_real.sum() / (k * len(synthetic)),
        in_real.any(axis=1).mean(),
    )


@pytest.mark.parametrize("k", [1, 3])
def test_manifold_agrees_with_the_definitions(rng, k):
    real = rng.integers(0, 9, size=(70, 3)).astype(float)  # a lattice: copies, and points on the rims of balls
    synthetic = rng.integers(2, 13, size=(50, 3)).astype(float)
    precision, recall, density, coverage = naive_manifold(real, synthetic, k)
    assert 0 < precision < 1
    assert precision_recall(real, synthetic, k) == pytest.approx((precision, recall))
    assert density_coverage(real, synthetic, k) == pytest.approx((density, coverage))


def test_manifold_by_hand():
    real, synthetic = np.array([[0.0], [1.0], [10.0]]), np.array([[2.0], [2.5], [100.0]])
    # Real balls, k = 1: [-1, 1], [0, 2], [1, 19]; synthetic balls: [1.5, 2.5], [2, 3], [2.5, 197.5].
    assert precision_recall(real, synthetic, 1) == pytest.approx((2 / 3, 1 / 3))
    assert density_coverage(real, synthetic, 1) == pytest.approx((3 / 3, 2 / 3))


def test_the_rim_of_a_ball_is_sharp():
    real = np.array([[0.0], [1.0]])  # balls [-1, 1] and [0, 2]
    synthetic = np.array([[2.0], [np.nextafter(2, 3)], [-1.0], [np.nextafter(-1, -2)], [50.0]])
    assert precision_recall(real, synthetic, 1)[0] == pytest.approx(2 / 5)


def test_copies_cover_themselves():
    real = np.tile([[0.3, 0.1], [0.7, 0.9]], (8, 1))
    assert precision_recall(real, real[::-1], 5) == (1.0, 1.0)
    assert density_coverage(real, real, 5) == (8 / 5, 1.0)


def test_collapse_to_one_real_image_keeps_precision_and_loses_recall(rng):
    real = rng.normal(size=(100, 4))
    scores = manifold_scores(real, np.tile(real[:1], (50, 1)))
    assert scores.precision == 1.0
    assert scores.recall == 0.01
    assert scores.coverage < 0.2


def test_manifold_needs_more_rows_than_neighbours(rng):
    x = rng.normal(size=(6, 2))
    manifold_scores(x, x, k=5)
    with pytest.raises(TooFewRows):
        manifold_scores(x, x[:5], k=5)
    with pytest.raises(TooFewRows):
        manifold_scores(x[:5], x, k=5)


# Entropy


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("k", [1, 5])
def test_entropy_of_a_gaussian(rng, width, k):
    expected = width / 2 * math.log(2 * math.pi * math.e) + width * math.log(3.0)
    estimates = {n: [knn_entropy(3.0 * rng.normal(size=(n, width)), k) for _ in range(8)] for n in (20, 1500)}
    errors = {n: math.sqrt(np.mean(np.square(np.subtract(found, expected)))) for n, found in estimates.items()}
    assert errors[1500] < 0.15
    assert errors[1500] < errors[20] / 2


def test_entropy_of_two_points_is_the_formula():
    expected = (1 - np.euler_gamma) + np.euler_gamma + math.log(math.pi) + 2 * math.log(5)
    assert knn_entropy(np.array([[0.0, 0.0], [3.0, 4.0]])) == pytest.approx(expected)


def test_entropy_scales_with_the_space(rng):
    x = rng.normal(size=(100, 7))
    assert knn_entropy(100 * x + 5) - knn_entropy(x) == pytest.approx(7 * math.log(100))


def test_duplicates_lower_the_entropy_by_a_finite_amount(rng):
    x = rng.normal(size=(100, 3))
    few, many = x.copy(), x.copy()
    few[:5], many[:50] = x[99], x[99]
    assert knn_entropy(x) > knn_entropy(few) > knn_entropy(many) > knn_entropy(np.zeros((100, 3)))
    assert math.isfinite(knn_entropy(np.zeros((100, 3))))


def test_duplicate_share():
    x = np.array([[0.0, 1.0], [2.0, 3.0], [-0.0, 1.0], [0.0, 1.0]])
    assert duplicate_share(x) == 0.5
    assert duplicate_share(x[:2]) == 0.0
    assert duplicate_share(np.zeros((10, 2))) == pytest.approx(0.9)
    np.testing.assert_array_equal(distinct_rows(x[::-1]), [[0, 1], [2, 3]])
    np.testing.assert_array_equal(distinct_rows(x[1:]), [[2, 3], [0, 1]])


# Memorization


def test_generalization_score_is_the_mean_nearest_distance(rng):
    synthetic, training = rng.normal(size=(30, 5)), rng.normal(size=(40, 5))
    expected = cdist(synthetic, training).min(axis=1).mean()
    assert generalization_score(synthetic, training) == pytest.approx(expected)
    assert generalization_score(training[:7], training) == 0.0


def test_memorization_ratio_counts_copies():
    training = np.array([[0.0], [10.0]])
    synthetic = np.array([[0.0], [2.0], [2.5], [2.6], [5.0], [9.0]])  # d1/d2 = 0, 1/4, 1/3, more, 1, 1/9
    assert memorization_ratio(synthetic, training) == pytest.approx(3 / 6)
    assert memorization_ratio(synthetic, training, threshold=0.2) == pytest.approx(2 / 6)


def test_duplicates_in_the_training_set_do_not_hide_copies(rng):
    training = rng.normal(size=(50, 8))
    copies = training[:20] + 1e-6
    assert memorization_ratio(copies, np.vstack([training, training])) == 1.0
    with pytest.raises(TooFewRows):
        memorization_ratio(copies, np.tile(training[:1], (10, 1)))


# Classes and provenance


def test_class_histogram_distance():
    assert class_histogram_distance(np.array([0, 1, 1, 0]), np.array([1, 0])) == 0
    assert class_histogram_distance(np.array([0, 0]), np.array([5])) == 1
    assert class_histogram_distance(np.array([0, 0, 0, 1, -1]), np.array([0, 1, 2, 2])) == pytest.approx(0.5)
    with pytest.raises(TooFewRows):
        class_histogram_distance(np.array([-1]), np.array([1]))


def test_provenance():
    origin = np.array([-1, -1, 0, 2], dtype=np.int32)
    assert real_share(origin) == 0.5
    assert mean_age(origin, 3) == pytest.approx((4 + 4 + 3 + 1) / 4)
    shares = origin_shares(origin, 3)
    assert shares == {"share_real": 0.5, "share_0": 0.25, "share_1": 0.0, "share_2": 0.25}
    assert origin_shares(origin[:2], 0) == {"share_real": 1.0}
    with pytest.raises(TooFewRows):
        real_share(origin[:0])
