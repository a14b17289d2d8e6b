"""Selectors against their definitions: brute force, closed forms, planted answers."""

import numpy as np
import pytest

from autophagy.common.samples import REAL, sample_ids
from autophagy.metrics.structure import ole_score
from autophagy.selection import Candidates, make_selector
from autophagy.selection.ole import ole_contributions


def images(points=None, is_real=None, sample_id=None, label=None, **columns):
    """Candidates at these points; synthetic unless said."""
    n = len(points) if points is not None else len(next(iter(columns.values())))
    is_real = np.zeros(n, bool) if is_real is None else np.asarray(is_real)
    return Candidates(
        sample_id=np.arange(n) + np.where(is_real, 0, 1 << 40) if sample_id is None else np.asarray(sample_id),
        generation=np.where(is_real, REAL, 0).astype(np.int32),
        label=np.zeros(n, np.int64) if label is None else np.asarray(label),
        features=np.zeros((n, 0), np.float32) if points is None else np.asarray(points, np.float32),
        **{"confidence": np.full(n, np.nan, np.float32), **columns},
    )


def choose(selection, candidates, num_keep, seed=0):
    return make_selector(selection).select(candidates, num_keep, np.random.default_rng(seed))


def unit_rows(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


class TestSimple:
    def test_none_keeps_the_first_by_sample_id(self):
        candidates = images(confidence=np.zeros(60), sample_id=np.arange(60)[::-1])
        np.testing.assert_array_equal(choose({"strategy": "none"}, candidates, 5), [59, 58, 57, 56, 55])

    def test_random_is_the_head_of_a_permutation(self):
        kept = choose({"strategy": "random"}, images(confidence=np.zeros(60)), 25, seed=7)
        np.testing.assert_array_equal(kept, np.random.default_rng(7).permutation(60)[:25])

    def test_random_is_uniform(self):
        candidates, times = images(confidence=np.zeros(60)), np.zeros(60)
        for seed in range(2000):
            times[choose({"strategy": "random"}, candidates, 15, seed)] += 1
        assert np.abs((times - 500) / np.sqrt(2000 * 0.25 * 0.75)).max() < 4.5

    @pytest.mark.parametrize(
        ("selection", "column", "order"),
        [
            ({"strategy": "lsf"}, "confidence", [4, 5, 1, 9, 7]),
            ({"strategy": "anti_lsf"}, "confidence", [1, 9, 5, 4, 7]),
            ({"strategy": "likelihood"}, "denoising_error", [1, 9, 5, 4, 7]),
            ({"strategy": "likelihood", "prefer": "bottom"}, "denoising_error", [4, 5, 1, 9, 7]),
        ],
    )
    def test_scores_are_followed_ties_by_id_missing_last(self, selection, column, order):
        ids = np.array([9, 4, 7, 1, 5])
        candidates = images(sample_id=ids, **{column: np.array([0.2, 0.9, np.nan, 0.2, 0.4], np.float32)})
        assert ids[choose(selection, candidates, 5)].tolist() == order

    def test_oldest_first_and_oracle_real_follow_the_origin(self):
        ids = np.concatenate([sample_ids(g, 0, 20) for g in (REAL, 0, 1)])
        generation = np.repeat([REAL, 0, 1], 20).astype(np.int32)
        order = np.random.default_rng(3).permutation(60)
        blank = np.full(60, np.nan)
        candidates = Candidates(ids, generation, np.zeros(60, np.int64), np.zeros((60, 0)), blank).take(order)
        oldest = candidates.sample_id[choose({"strategy": "oldest_first"}, candidates, 60)]
        np.testing.assert_array_equal(oldest, np.sort(ids))
        chosen = candidates.generation[choose({"strategy": "oracle_real"}, candidates, 60)]
        assert (chosen[:20] == REAL).all()
        assert (chosen[20:] != REAL).all()
        assert (np.diff(chosen[20:]) < 0).any()  # random among the synthetic ones


class TestCandidates:
    def test_columns_have_one_length(self):
        with pytest.raises(ValueError, match="different lengths"):
            images(np.zeros((3, 2)), label=np.zeros(2, np.int64))

    def test_take_keeps_rows_together(self):
        candidates = images(np.arange(8).reshape(4, 2), is_real=[1, 0, 1, 0], pixels=np.arange(4)[:, None])
        taken = candidates.take(np.array([3, 0, 0]))
        assert taken.latent is None
        assert taken.is_real.tolist() == [False, True, True]
        assert taken.features[:, 0].tolist() == [6, 0, 0]
        assert taken.pixels[:, 0].tolist() == [3, 0, 0]

    def test_real_candidates_are_the_reference_where_none_is_given(self):
        candidates = images(np.zeros((4, 2)), is_real=[1, 0, 1, 0], label=[0, 0, 1, 1])
        assert candidates.beside_real().reference.sample_id.tolist() == [0, 2]
        assert candidates.beside_real().of_class(1).reference.sample_id.tolist() == [2]
        assert candidates.take(np.array([1])).beside_real().reference.sample_id.size == 0


class TestOle:
    def data(self, num_classes=3, per_class=12, rank=3, dim=40, noise=0.3, seed=0):
        rng = np.random.default_rng(seed)
        label = np.repeat(np.arange(num_classes), per_class)
        rows = [rng.standard_normal((per_class, rank)) @ rng.standard_normal((rank, dim)) for _ in range(num_classes)]
        return unit_rows(np.concatenate(rows) + noise * rng.standard_normal((label.size, dim))), label

    @pytest.mark.parametrize("dim", [5, 12, 40, 100])  # fewer, as many, more columns than rows of a class, of all
    @pytest.mark.parametrize("noise", [0.0, 0.3])
    def test_contributions_are_the_terms_of_the_score(self, dim, noise):
        latents, label = self.data(dim=dim, noise=noise)
        found = ole_contributions(latents, label)
        np.testing.assert_allclose(found.sum(), ole_score(latents, label), atol=1e-4)

        def polar(m):
            u, s, v = np.linalg.svd(m, full_matrices=False)
            return u[:, s > 1e-9] @ v[s > 1e-9]

        own = np.concatenate([polar(latents[label == c]) for c in range(3)])
        brute = np.einsum("ij,ij->i", latents, own - polar(latents))
        np.testing.assert_allclose(found, brute, atol=2e-6)
        assert brute.min() > -1e-9  # Jensen's operator inequality
        assert found.max() <= 1

    def test_orthogonal_classes_contribute_nothing(self):
        latents, label = self.data(noise=0, dim=4)
        blocks = np.zeros((36, 12))
        for c in range(3):
            blocks[label == c, 4 * c : 4 * c + 4] = latents[label == c]
        np.testing.assert_allclose(ole_contributions(blocks, label), 0, atol=2e-6)

    def test_a_direction_of_its_own_overlaps_with_nothing(self):
        latents, label = self.data(dim=30)
        latents = np.append(latents, np.zeros((36, 1)), axis=1)
        latents[5] = np.eye(31)[30]
        contributions = ole_contributions(latents, label)
        assert contributions[5] == pytest.approx(0, abs=2e-6)
        assert np.delete(contributions, 5).min() > 1e-3

    @pytest.mark.parametrize("selection", [{"drop": 1}, {"drop": 0.5}, {"drop": 1, "per_class": True}, {}])
    def test_planted_latents_in_the_subspace_of_another_class_leave_first(self, selection):
        latents, label = self.data(per_class=40, noise=0.02, dim=30)
        rng = np.random.default_rng(1)
        planted = np.concatenate([40 * c + rng.permutation(40)[:6] for c in range(3)])
        label[planted] = (label[planted] + 1) % 3
        candidates = images(latent=latents * rng.uniform(0.1, 9, (120, 1)), label=label)
        assert set(choose({"strategy": "ole", **selection}, candidates, 120)[-18:]) == set(planted)

    def test_balanced_sets_score_far_lower_than_random_ones(self):
        latents, label = self.data(per_class=40, noise=0.5)
        candidates = images(latent=latents, label=label)

        def score(strategy, seed=0, **fields):
            kept = choose({"strategy": strategy, "per_class": True, **fields}, candidates, 30, seed)
            return ole_score(latents[kept], label[kept])

        random = [score("random", seed) for seed in range(50)]
        assert score("ole", drop=1) < min(random)
        assert score("ole", drop=0.25) < score("ole", drop=1)

    def test_rounds_drop_the_worst_and_score_the_rest_anew(self):
        latents, label = self.data(per_class=8)
        candidates = images(latent=latents, label=label)
        left, expected = np.arange(24), []
        while left.size:
            order = np.argsort(-ole_contributions(latents[left], label[left]), kind="stable")
            num_dropped = left.size - left.size // 2
            expected += left[order[:num_dropped]].tolist()
            left = np.delete(left, order[:num_dropped])
        # Equal contributions, as of a class that is left alone, go by sample id in both.
        kept = choose({"strategy": "ole"}, candidates, 24)
        assert set(expected[:12]) == set(kept[12:])
        assert set(expected[:18]) == set(kept[6:])

    def test_per_class_drops_from_every_class_alike(self):
        latents, label = self.data(per_class=8)
        scores = make_selector({"strategy": "ole", "per_class": True}).scores(images(latent=latents, label=label))
        for c in range(3):
            assert np.ceil(np.sort(scores[label == c])).tolist() == [0, 0, 0, 0, 1, 1, 2, 3]

    def test_latents_without_direction_come_last(self):
        latents, label = self.data()
        latents[[3, 30]] = 0
        assert choose({"strategy": "ole"}, images(latent=latents, label=label), 36)[-2:].tolist() == [3, 30]


class TestTrajectoryVariance:
    variance = np.random.default_rng(0).random(60).astype(np.float32)
    is_real = np.arange(60) % 3 == 0
    variance[is_real] = np.nan
    variance[1] = np.nan  # a synthetic image whose sampler did not record it
    candidates = images(trajectory_variance=variance, is_real=is_real)

    def test_synthetic_images_by_variance_real_ones_in_random_order(self):
        kept = choose({"strategy": "trajectory_variance"}, self.candidates, 60)
        synthetic, real = kept[~self.is_real[kept]], kept[self.is_real[kept]]
        assert (np.diff(self.variance[synthetic][:-1]) >= 0).all()
        assert synthetic[-1] == 1
        again = choose({"strategy": "trajectory_variance"}, self.candidates, 60, seed=1)
        assert real.tolist() != again[self.is_real[again]].tolist()

    def test_every_place_is_as_likely_real_as_under_random_selection(self):
        runs = [choose({"strategy": "trajectory_variance"}, self.candidates, 60, seed) for seed in range(2000)]
        share = self.is_real[np.array(runs)].mean(axis=0)
        assert np.abs((share - 1 / 3) / np.sqrt(2 / 9 / 2000)).max() < 4.5


class TestDensityRatio:
    def test_scores_are_the_log_ratio_of_gaussians(self):
        # log N(x; 0, I) - log N(x; mu, I) = |mu|^2 / 2 - mu x, whatever the numbers of images.
        rng = np.random.default_rng(0)
        mu = np.array([1.0, -0.5, 0.0])
        x = rng.standard_normal((4000, 3)) + np.where(np.arange(4000) < 1000, 0, 1)[:, None] * mu
        scores = make_selector({"strategy": "density_ratio"}).scores(images(x, is_real=np.arange(4000) < 1000))
        truth = mu @ mu / 2 - x @ mu
        assert np.corrcoef(scores, truth)[0, 1] > 0.99
        assert abs(np.mean(scores - truth)) < 0.1

    @pytest.mark.parametrize("beside_reference", [False, True])
    def test_real_images_are_not_preferred_for_being_known_by_heart(self, beside_reference):
        # One law for all, and so many dimensions that a classifier separates perfectly what it was fitted on.
        rng = np.random.default_rng(0)
        candidates = images(rng.standard_normal((400, 300)), is_real=np.arange(400) < 200)
        if beside_reference:
            candidates = candidates.beside_real()
        scores = make_selector({"strategy": "density_ratio"}).scores(candidates)
        assert 0.35 < np.mean(scores[:200, None] > scores[None, 200:]) < 0.65

    def test_nothing_to_tell_apart_is_a_tie(self):
        x = np.random.default_rng(0).standard_normal((30, 3))
        assert not make_selector({"strategy": "density_ratio"}).scores(images(x, is_real=np.ones(30, bool))).any()

    def test_folds_are_even_over_ids_and_over_cycles_of_labels(self):
        from autophagy.selection.density_ratio import _fold

        fold = _fold(sample_ids(3, 0, 8000))
        for step in (1, 2, 3, 4, 5, 8, 10):
            for start in range(step):
                share = np.bincount(fold[start::step], minlength=4) / fold[start::step].size
                assert np.abs(share - 0.25).max() < 0.02


class TestCenterMatch:
    def test_nearest_to_the_real_mean_first(self):
        rng = np.random.default_rng(0)
        x, real = rng.standard_normal((40, 4)), rng.standard_normal((10, 4)) + 1
        candidates = images(x)
        among = images(np.concatenate([real, x]), is_real=np.arange(50) < 10)
        beside = Candidates(**{**vars(candidates), "reference": images(real, is_real=np.ones(10, bool))})
        expected = np.argsort(np.linalg.norm(x - real.mean(axis=0), axis=1))
        np.testing.assert_array_equal(choose({"strategy": "center_match"}, beside, 40), expected)
        kept = choose({"strategy": "center_match"}, among, 50) - 10
        np.testing.assert_array_equal(kept[kept >= 0], expected)

    def test_per_class_has_a_centre_for_each(self):
        label = np.repeat([0, 1], 20)
        x = np.random.default_rng(0).standard_normal((40, 2)) + 10 * label[:, None]
        candidates = images(x, is_real=np.arange(40) % 2 == 0, label=label)
        kept = choose({"strategy": "center_match", "per_class": True}, candidates, 40)
        for c in (0, 1):
            centre = x[(label == c) & candidates.is_real].mean(axis=0)
            assert (np.diff(np.linalg.norm(x[kept[label[kept] == c]] - centre, axis=1)) > 0).all()


class TestCovMatch:
    @pytest.mark.parametrize(("dim", "num_real", "num_components"), [(3, 50, 32), (6, 50, 2), (9, 5, 3), (1, 9, 32)])
    def test_is_the_greedy_choice(self, dim, num_real, num_components):
        rng = np.random.default_rng(dim)
        x, real = 2 * rng.standard_normal((30, dim)) + 1, rng.standard_normal((num_real, dim)) * np.arange(1, dim + 1)
        candidates = Candidates(**{**vars(images(x)), "reference": images(real, is_real=np.ones(num_real, bool))})
        axes = np.linalg.svd(real - real.mean(axis=0), full_matrices=False)[2][:num_components].T
        y, target = (x - real.mean(axis=0)) @ axes, np.cov(real @ axes, rowvar=False, ddof=0)
        expected = [int(np.linalg.norm(y, axis=1).argmin())]
        while len(expected) < 12:
            far = {
                i: np.linalg.norm(np.atleast_2d(np.cov(y[[*expected, i]], rowvar=False, ddof=0) - target))
                for i in range(30)
                if i not in expected
            }
            expected.append(min(far, key=far.__getitem__))
        kept = choose({"strategy": "cov_match", "num_components": num_components}, candidates, 12)
        assert kept.tolist() == expected

    def test_matches_a_covariance_that_the_candidates_do_not_have(self):
        rng = np.random.default_rng(0)
        real, x = rng.standard_normal((300, 4)), rng.standard_normal((600, 4)) * [0.5, 1, 1.5, 2]
        kept = choose({"strategy": "cov_match"}, images(np.concatenate([real, x]), is_real=np.arange(900) < 300), 100)
        points = np.concatenate([real, x])[kept]
        assert np.linalg.norm(np.cov(points.T) - np.cov(real.T)) < 0.05


class TestKMeans:
    centres = np.array([[0, 0], [20, 0], [0, 20], [20, 20]])
    blob = np.repeat([0, 1, 2, 3], [10, 25, 5, 15])
    x = centres[blob] + np.random.default_rng(0).standard_normal((55, 2))

    def nearest(self, blob):
        rows = np.flatnonzero(self.blob == blob)
        return rows[np.argsort(np.linalg.norm(self.x[rows] - self.x[rows].mean(axis=0), axis=1))].tolist()

    def test_one_of_each_cluster_nearest_to_its_centre_largest_first(self):
        kept = choose({"strategy": "kmeans"}, images(self.x), 4)
        assert kept.tolist() == [self.nearest(b)[0] for b in (1, 3, 0, 2)]

    def test_clusters_take_turns(self):
        kept = choose({"strategy": "kmeans", "num_clusters": 4}, images(self.x), 28)
        assert kept[:20].tolist() == [self.nearest(b)[turn] for turn in range(5) for b in (1, 3, 0, 2)]
        assert kept[20:].tolist() == [self.nearest(b)[turn] for turn in (5, 6, 7) for b in (1, 3, 0)][:8]

    def test_copies_weigh_and_come_last(self):
        x = np.concatenate([self.x, np.repeat(self.x[self.nearest(2)[:1]], 40, axis=0)])
        kept = choose({"strategy": "kmeans", "num_clusters": 4}, images(x), 95)
        assert self.nearest(2)[0] == kept[0]  # the largest cluster now
        own = [i for i in kept if i >= 55 or self.blob[i] == 2]
        assert set(own[:5]) == set(np.flatnonzero(self.blob == 2))
        assert own[5:] == list(range(55, 95))
        small = choose({"strategy": "kmeans"}, images(np.repeat(np.eye(3), [2, 5, 3], axis=0)), 9)
        assert small.tolist() == [2, 7, 0, 3, 8, 1, 4, 9, 5]
