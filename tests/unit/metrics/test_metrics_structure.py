"""Metrics of the shape of one set, against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from autophagy.metrics.rows import TooFewRows
from autophagy.metrics.structure import (
    balanced_unit_rows,
    effective_rank,
    ole_score,
    spectrum,
    total_variance,
    vendi_score,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def with_deviations(rng, n, deviations):
    """Rows whose unbiased covariance is exactly that of these standard deviations, in rotated axes."""
    x = rng.normal(size=(n, len(deviations)))
    q, _ = np.linalg.qr(x - x.mean(axis=0))
    rotation, _ = np.linalg.qr(rng.normal(size=(len(deviations), len(deviations))))
    return (q * math.sqrt(n - 1) * np.asarray(deviations)) @ rotation


# Orthogonality of classes


def test_ole_of_orthogonal_subspaces_is_zero(rng):
    rotation, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    blocks = [rng.normal(size=(9, 4)) @ rotation[4 * c : 4 * c + 4] for c in range(3)]
    labels = np.repeat([3, 7, 9], 9)
    assert ole_score(np.vstack(blocks), labels) == pytest.approx(0, abs=1e-10)
    assert ole_score(np.vstack(blocks), rng.permutation(labels)) > 1


@pytest.mark.parametrize("width", [2, 500], ids=["narrow", "wide"])
def test_ole_of_two_equal_vectors(width):
    latents = np.zeros((2, width), dtype=np.float16)
    latents[:, 1] = 1
    assert ole_score(latents, np.array([0, 1])) == pytest.approx(2 - math.sqrt(2))
    assert ole_score(latents, np.array([0, 0])) == 0.0


def test_ole_falls_with_the_angle_between_classes():
    def score(angle):
        return ole_score(np.array([[1.0, 0.0], [math.cos(angle), math.sin(angle)]]), np.array([0, 1]))

    scores = [score(angle) for angle in np.linspace(0, math.pi / 2, 5)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] == pytest.approx(0, abs=1e-12)


def test_ole_needs_a_label_per_row():
    with pytest.raises(ValueError, match="one label per row"):
        ole_score(np.ones((3, 2)), np.zeros(2))


def test_balanced_unit_rows(rng):
    labels = np.array([0] * 10 + [2] * 4 + [-1] * 6)
    latents = (100.0 * rng.normal(size=(20, 5))).astype(np.float16)
    rows, classes = balanced_unit_rows(latents, labels, 4, np.random.default_rng(5))
    np.testing.assert_array_equal(classes, [0] * 4 + [2] * 4)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0)
    unit = latents.astype(float) / np.linalg.norm(latents.astype(float), axis=1, keepdims=True)
    index = cdist(rows, unit).argmin(axis=1)
    np.testing.assert_allclose(rows, unit[index])
    np.testing.assert_array_equal(labels[index], classes)
    assert len(set(index)) == 8
    np.testing.assert_array_equal(rows, balanced_unit_rows(latents, labels, 4, np.random.default_rng(5))[0])
    for per_class, some in ((5, labels), (0, labels), (1, np.full(20, -1))):
        with pytest.raises(TooFewRows):
            balanced_unit_rows(latents, some, per_class, rng)


def test_a_row_of_zeros_has_no_direction(rng):
    rows, _ = balanced_unit_rows(np.zeros((4, 3)), np.array([0, 0, 1, 1]), 2, rng)
    assert (rows == 0).all()


def test_total_variance(rng):
    x = rng.normal(size=(40, 6))
    assert total_variance(x) == pytest.approx(np.trace(np.cov(x.T)))
    assert total_variance(np.full((5, 3), 0.1)) == pytest.approx(0)
    with pytest.raises(TooFewRows):
        total_variance(x[:1])


# Spectrum


@pytest.mark.parametrize("n", [9, 400])
def test_spectrum_of_a_known_covariance(rng, n):
    x = 1e3 + with_deviations(rng, n, [3.0, 0.5, 2.0, 0.0])
    np.testing.assert_allclose(spectrum(x), [3, 2, 0.5, 0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(spectrum(x, 2), [3, 2], rtol=1e-9)
    np.testing.assert_allclose(spectrum(-10 * x), 10 * spectrum(x), rtol=1e-9, atol=1e-9)


def test_squares_of_the_spectrum_sum_to_the_total_variance(rng):
    x = rng.normal(size=(50, 7)) * np.arange(1, 8)
    assert (spectrum(x, 7) ** 2).sum() == pytest.approx(total_variance(x))


def test_few_rows_span_few_directions(rng):
    values = spectrum(rng.normal(size=(4, 30)), 6)
    assert values.shape == (6,)
    assert (values[:3] > 1).all()
    np.testing.assert_allclose(values[3:], 0, atol=1e-12)


def test_spectrum_needs_two_rows():
    for metric in (spectrum, effective_rank):
        with pytest.raises(TooFewRows):
            metric(np.ones((1, 3)))


def test_effective_rank(rng):
    assert effective_rank(with_deviations(rng, 40, [2, 2, 2])) == pytest.approx(3)
    assert effective_rank(with_deviations(rng, 40, [2, 0, 0])) == pytest.approx(1)
    shares = np.array([3, 2, 1]) / 6
    expected = math.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(7 + 100 * with_deviations(rng, 40, [3, 2, 1])) == pytest.approx(expected)
    assert effective_rank(np.full((40, 3), 0.1)) == 0


# Vendi score


@pytest.mark.parametrize("copies", [1, 30], ids=["fewer rows than features", "more rows than features"])
def test_vendi_score_of_equal_groups_is_their_number(rng, copies):
    rotation, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    for groups in (1, 5, 20):
        x = np.tile(rotation[:groups], (copies, 1)) * rng.uniform(0.1, 10, size=(groups * copies, 1))
        assert vendi_score(x) == pytest.approx(groups)


@pytest.mark.parametrize("width", [3, 100], ids=["narrow", "wide"])
def test_vendi_score_is_its_definition(rng, width):
    x = 0.4 + rng.normal(size=(25, width))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    shares = np.linalg.eigvalsh(unit @ unit.T / 25)
    shares = shares[shares > 1e-12]
    assert vendi_score(x) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))


def test_rows_of_zeros_are_like_each_other_and_unlike_all_else(rng):
    x = np.eye(4)
    x[3] = 0
    assert vendi_score(x) == pytest.approx(4)
    assert vendi_score(np.zeros((5, 3))) == 1
    assert vendi_score(np.vstack([np.zeros((2, 2)), np.ones((2, 2))])) == pytest.approx(2)
    assert vendi_score(np.array([[1e200, 0.0], [0.0, 1e-200]])) == pytest.approx(2)


def test_labels_choose_rows_of_a_tensor_too(rng):
    latents, labels = rng.normal(size=(30, 6)).astype(np.float32), np.arange(30) % 3
    expected = ole_score(*balanced_unit_rows(latents, labels, 4, np.random.default_rng(1)))
    tensor = torch.from_numpy(latents)
    assert ole_score(*balanced_unit_rows(tensor, labels, 4, np.random.default_rng(1))) == expected
