"""Clusters of points whose subspaces and classes are known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import orthogonal_mp
from sklearn.metrics import adjusted_rand_score

from autophagy.features.clustering import kmeans_labels, match_clusters, self_expression, ssc_omp


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def subspaces(num: int = 4, dim: int = 3, width: int = 30, each: int = 100, seed: int = 0):
    """Points in random subspaces [num * each, width] in random order, and which subspace each is in."""
    rng = np.random.default_rng(seed)
    bases = [np.linalg.qr(rng.normal(size=(width, dim)))[0] for _ in range(num)]
    order = rng.permutation(num * each)
    x = np.concatenate([rng.normal(size=(each, dim)) @ basis.T for basis in bases])
    return x[order], np.repeat(np.arange(num), each)[order]


def accuracy(clusters: np.ndarray, classes: np.ndarray) -> float:
    return float((match_clusters(clusters, classes, int(classes.max()) + 1) == classes).mean())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def elsewhere(x: np.ndarray, seed: int) -> np.ndarray:
    """`x` float64, as another machine may have rounded what it was computed from."""
    return x * (1 + 1e-15 * rng(seed).normal(size=x.shape))


def three_parts_alike(each: int = 15) -> np.ndarray:
    """Points [3 * each, 12] in three orthogonal subspaces, in each at the same places."""
    return np.kron(np.eye(3), rng().normal(size=(each, 4)))


def eigensolver_elsewhere(seed: int):
    """As good as lobpcg; of eigenvectors whose eigenvalues are equal it returns any."""

    def solve(matrix, start, **_):
        values, vectors = np.linalg.eigh(matrix.toarray())
        for equal in np.split(np.arange(len(values)), np.flatnonzero(np.diff(values) > 1e-9) + 1):
            turn = np.linalg.qr(rng(seed).normal(size=(len(equal), len(equal))))[0]
            vectors[:, equal] = vectors[:, equal] @ turn
        return values[::-1][: start.shape[1]], vectors[:, ::-1][:, : start.shape[1]]

    return solve


class TestSelfExpression:
    def test_is_orthogonal_matching_pursuit_among_the_others(self):
        x = rng().normal(size=(60, 12)) * rng(1).uniform(0.1, 10, size=(60, 1))
        code = self_expression(x, num_nonzero=4).toarray()
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        for i in range(60):
            others = np.delete(np.arange(60), i)
            expected = np.zeros(60)
            expected[others] = orthogonal_mp(unit[others].T, unit[i], n_nonzero_coefs=4)
            np.testing.assert_allclose(code[i], expected, atol=1e-9)

    def test_stops_at_what_is_explained(self):
        # A point in a subspace of 3 dimensions needs no more than 3 others.
        x, _ = subspaces()
        code = self_expression(x, num_nonzero=10)
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        assert np.diff(code.indptr).max() == 3
        assert np.abs(code @ unit - unit).max() < 1e-3
        loose = self_expression(x, num_nonzero=10, tolerance=0.2)
        assert loose.nnz < code.nnz
        assert ((unit - loose @ unit) ** 2).sum(axis=1).max() <= 0.2

    def test_links_points_of_one_subspace(self):
        x, classes = subspaces()
        code = self_expression(x).tocoo()
        assert (code.row != code.col).all()
        weight = np.abs(code.data)
        assert weight[classes[code.row] == classes[code.col]].sum() > 0.95 * weight.sum()

    def test_rounding_does_not_choose_among_equals(self):
        ring = np.eye(50) + np.roll(np.eye(50), 1, axis=0)  # each is as near to the one before as to the one after
        for seed in range(5):
            found = self_expression(elsewhere(ring, seed), num_nonzero=1).indices
            np.testing.assert_array_equal(found, [1, *range(48), 0])

    def test_rounding_makes_no_links(self):
        # The first is the sum of the second and the third. The fourth is nearest, but of no use beside both.
        x = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.5]])
        for seed in range(5):
            turn = np.linalg.qr(rng(seed).normal(size=(3, 3)))[0]
            assert set(self_expression(x @ turn)[0].indices) == {1, 2}

    def test_copies_and_zeros(self):
        x = np.concatenate([np.zeros((3, 5)), np.ones((2, 5)), np.eye(5)[:2]])
        code = self_expression(x).toarray()
        assert not code[:3].any()
        assert not code[:, :3].any()
        np.testing.assert_allclose(code[3], np.eye(7)[4])  # a copy explains all, and nothing is solved twice
        assert np.isfinite(code).all()


class TestSscOmp:
    @pytest.mark.parametrize("seed", range(3))
    def test_finds_independent_subspaces_where_kmeans_cannot(self, seed):
        x, classes = subspaces(seed=seed)
        found = ssc_omp(x, 4, rng(seed))
        assert found.dtype == np.int64
        assert accuracy(found, classes) >= 0.95
        assert accuracy(kmeans_labels(x, 4, rng(seed)), classes) < 0.6

    def test_length_sign_and_precision_do_not_matter(self):
        x, classes = subspaces()
        scale = rng(1).uniform(0.01, 100, size=(400, 1)) * rng(2).choice([-1, 1], size=(400, 1))
        assert accuracy(ssc_omp((x * scale).astype(np.float32), 4, rng()), classes) >= 0.95

    def test_many_points_join_a_clustered_subset(self):
        x, classes = subspaces(each=150)
        assert accuracy(ssc_omp(x, 4, rng(), most=300), classes) >= 0.95

    def test_the_others_join_up_to_sign(self):
        lines = np.repeat(rng().normal(size=(3, 5)), 20, axis=0) * rng(1).uniform(1, 2, size=(60, 1))
        lines[::20] *= -1  # too few for every subset to have one of each
        for x in (lines, *(elsewhere(lines, seed) for seed in range(5))):
            assert accuracy(ssc_omp(x, 3, rng(), most=15), np.repeat(np.arange(3), 20)) == 1

    def test_wide_points(self):
        x, classes = subspaces(num=3, width=5000, each=30)
        assert accuracy(ssc_omp(x, 3, rng()), classes) >= 0.95

    def test_one_seed_one_answer(self):
        x, _ = subspaces()
        for most in (5000, 300):
            np.testing.assert_array_equal(ssc_omp(x, 4, rng(5), most=most), ssc_omp(x, 4, rng(5), most=most))

    def test_copies_share_a_label_and_take_no_part(self):
        x, classes = subspaces()
        copied = np.concatenate([x, x, x[:50]])
        found = ssc_omp(copied, 4, rng())
        np.testing.assert_array_equal(found[:400], found[400:800])
        np.testing.assert_array_equal(found[:50], found[800:])
        assert accuracy(found[:400], classes) >= 0.95

    def test_multiples_and_what_rounding_made_of_copies_are_copies(self):
        x, classes = subspaces()
        found = ssc_omp(np.concatenate([x, elsewhere(x, 1), -2 * x]), 4, rng())
        np.testing.assert_array_equal(found, np.tile(found[:400], 3))
        assert accuracy(found[:400], classes) >= 0.95

    def test_zeros_do_not_take_a_cluster(self):
        x, classes = subspaces()
        found = ssc_omp(np.concatenate([np.zeros((100, 30)), x]), 4, rng())
        assert accuracy(found[100:], classes) >= 0.95
        assert np.unique(found[:100]).size == 1

    @pytest.mark.parametrize("num_clusters", [1, 2, 3, 10])
    @pytest.mark.parametrize(
        "x",
        [
            np.empty((0, 3)),
            np.ones((1, 3)),
            np.zeros((6, 3)),
            np.ones((6, 3)),
            np.repeat(np.eye(3), 4, axis=0),
            np.arange(1, 13)[:, None] * np.ones((12, 3)),  # on one line
            np.eye(12),  # no point says anything about another
            np.kron(np.eye(12), np.ones((2, 2))) + 0.1 * np.eye(24),  # 12 components
            np.arange(12)[:, None] / 7,  # one dimension
        ],
        ids=["none", "one", "zeros", "ones", "few distinct", "line", "orthogonal", "components", "one dimension"],
    )
    def test_ends_whatever_the_points_are(self, x, num_clusters):
        for most in (5000, 5):
            found = ssc_omp(x, num_clusters, rng(), most=most)
            assert found.shape == (len(x),)
            assert found.dtype == np.int64
            assert ((found >= 0) & (found < num_clusters)).all()

    def test_few_distinct_points_are_the_clusters(self):
        found = ssc_omp(np.repeat(np.eye(3), 4, axis=0), 5, rng())
        assert adjusted_rand_score(np.repeat(np.arange(3), 4), found) == 1

    @pytest.mark.parametrize("each", [5, 150])
    def test_a_graph_of_as_many_components_as_clusters(self, each):
        # As many eigenvalues are exactly 1.
        x = np.zeros((3, each, 9))
        for part in range(3):
            x[part, :, 3 * part : 3 * part + 3] = rng(part).normal(size=(each, 3))
        assert accuracy(ssc_omp(x.reshape(-1, 9), 3, rng()), np.repeat(np.arange(3), each)) == 1

    @pytest.mark.parametrize("sizes", [(50, 50, 50, 50), (100, 60, 30, 10)])
    def test_a_graph_of_more_components_than_clusters(self, sizes):
        # Points in a plane are coded by two others, and each plane falls into several components.
        classes = np.repeat(np.arange(4), sizes)
        bases = rng().normal(size=(4, 2, 30))
        x = np.einsum("ij,ijk->ik", rng(1).normal(size=(200, 2)), bases[classes])
        for points in (x, *(elsewhere(x, seed) for seed in range(3))):
            assert accuracy(ssc_omp(points, 4, rng()), classes) == 1

    def test_components_far_from_all_others_are_no_clusters_if_they_are_small(self):
        x, classes = subspaces(num=2)
        pairs = np.repeat(rng().normal(size=(4, 30)), 2, axis=0)
        found = ssc_omp(np.concatenate([x, pairs + 1e-4 * rng(1).normal(size=pairs.shape)]), 2, rng())
        assert accuracy(found[:200], classes) == 1

    @pytest.mark.parametrize("num_clusters", [2, 3, 4, 7])
    def test_any_basis_of_an_eigenspace_will_do(self, num_clusters, monkeypatch):
        # Three eigenvalues are 1, and the next are equal by threes.
        found = []
        for seed in range(5):
            monkeypatch.setattr("scipy.sparse.linalg.lobpcg", eigensolver_elsewhere(seed))
            found.append(ssc_omp(three_parts_alike(), num_clusters, rng()))
        assert np.unique(found[0]).size == num_clusters
        assert min(adjusted_rand_score(found[0], other) for other in found) == 1

    @pytest.mark.parametrize("num_clusters", [2, 3, 4, 7])
    @pytest.mark.parametrize("each", [12, 60])
    def test_rounding_changes_no_label_where_the_graph_falls_apart(self, each, num_clusters):
        x = three_parts_alike(each)
        for seed in range(3):
            found = ssc_omp(x, num_clusters, rng(seed))
            assert adjusted_rand_score(found, ssc_omp(elsewhere(x, seed), num_clusters, rng(seed))) == 1

    def test_points_along_a_curve_are_cut_into_stretches(self):
        # Each is between its two neighbours, and nothing says where to cut: the eigenvalues crowd at 1.
        x = np.maximum(0, 1 - np.abs(np.subtract.outer(np.arange(200), np.arange(200))) / 2)
        found = ssc_omp(x, 4, rng(), num_nonzero=2)
        assert np.count_nonzero(np.diff(found)) <= 8


class TestKmeans:
    def test_finds_blobs_whatever_the_units(self):
        classes = np.repeat(np.arange(3), 40)
        centres = np.array([[0, 0, 5, 1], [0, 8, 5, 1], [9, 4, 5, 1]])
        x = (centres[classes] + rng().normal(size=(120, 4)) * [1, 1, 1, 0]) * [1, 1, 1000, 1]
        found = kmeans_labels(x, 3, rng())
        assert found.dtype == np.int64
        assert accuracy(found, classes) > 0.95
        np.testing.assert_array_equal(found, kmeans_labels(x, 3, rng()))

    def test_dimensions_that_vary_by_rounding_have_no_say(self):
        classes = np.repeat(np.arange(3), 40)
        blobs = np.array([[0, 0], [0, 8], [9, 4]])[classes] + rng().normal(size=(120, 2))
        saturated = 1 + np.finfo(np.float32).eps * rng(1).integers(-1, 2, size=(120, 500))
        x = np.concatenate([blobs, saturated], axis=1).astype(np.float32)
        assert accuracy(kmeans_labels(x, 3, rng()), classes) > 0.95

    @pytest.mark.parametrize("x", [np.empty((0, 3)), np.ones((4, 3)), np.eye(2)], ids=["none", "one point", "two"])
    def test_fewer_points_than_clusters(self, x):
        found = kmeans_labels(x, 10, rng())
        assert np.unique(found).size == np.unique(x, axis=0).shape[0]

    def test_on_digits(self):
        digits = load_digits(n_class=4)
        assert accuracy(kmeans_labels(digits.data, 4, rng()), digits.target) > 0.8


@pytest.mark.parametrize("cluster", [ssc_omp, kmeans_labels])
@pytest.mark.parametrize(
    ("x", "num_clusters", "told"),
    [
        (np.ones(3), 2, "shape"),
        (np.full((4, 2), np.nan), 2, "finite"),
        (np.ones((4, 2)), 0, "num_clusters"),
    ],
)
def test_what_cannot_be_clustered(cluster, x, num_clusters, told):
    with pytest.raises(ValueError, match=told):
        cluster(x, num_clusters, rng())


class TestMatch:
    def test_undoes_a_renaming(self):
        classes = rng().integers(5, size=100)
        np.testing.assert_array_equal(match_clusters(rng(1).permutation(5)[classes] + 7, classes, 5), classes)

    def test_is_the_best_of_all_namings(self):
        # Each cluster for itself would be called 0; together they do better as 1 and 0.
        clusters = np.repeat([0, 1], [5, 7])
        classes = np.array([0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0])
        np.testing.assert_array_equal(match_clusters(clusters, classes, 2), np.repeat([1, 0], [5, 7]))

    def test_rows_without_a_class_have_no_say_but_get_a_name(self):
        clusters = np.array([0, 0, 0, 0, 1, 1])
        classes = np.array([1, -1, -1, -1, 0, -1])
        np.testing.assert_array_equal(match_clusters(clusters, classes, 2), [1, 1, 1, 1, 0, 0])

    def test_fewer_clusters_than_classes(self):
        np.testing.assert_array_equal(match_clusters(np.array([3, 3, 8]), np.array([4, 4, 2]), 5), [4, 4, 2])

    def test_more_clusters_than_classes(self):
        clusters = np.array([0, 0, 0, 1, 1, 2, 2, 3])
        classes = np.array([0, 0, 0, 0, 0, 1, 1, -1])
        np.testing.assert_array_equal(match_clusters(clusters, classes, 2), [0, 0, 0, 0, 0, 1, 1, -1])

    def test_no_class_is_known(self):
        found = match_clusters(np.array([4, 4, 9]), np.full(3, -1), 2)
        assert sorted({int(found[0]), int(found[2])}) == [0, 1]
        assert found[0] == found[1]

    def test_nothing(self):
        assert match_clusters(np.empty(0, np.int64), np.empty(0, np.int64), 3).shape == (0,)

    @pytest.mark.parametrize("classes", [[0, 5], [0, -2], [0]])
    def test_classes_that_do_not_fit(self, classes):
        with pytest.raises(ValueError, match="class"):
            match_clusters(np.array([0, 1]), np.array(classes), 3)
