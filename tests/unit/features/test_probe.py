"""The softmax probe on latents whose classes are known."""

from __future__ import annotations

import numpy as np
import pytest

from autophagy.features.probe import FIXED_PENALTY, PENALTIES, LinearProbe, Probe, Split, fit_best_penalty, fit_linear

DIM = 8


def gaussians(num_classes: int, num_each: int, distance: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Latents float32 [n, DIM] of unit Gaussians around `distance` times a unit vector each, and their labels."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.repeat(np.arange(num_classes), num_each))
    return (distance * np.eye(DIM)[label] + rng.normal(size=(len(label), DIM))).astype(np.float32), label


def split(num_classes: int = 4, distance: float = 8.0, shuffled: bool = False) -> Split:
    fit, fit_label = gaussians(num_classes, 60, distance, seed=0)
    validation, validation_label = gaussians(num_classes, 60, distance, seed=1)
    if shuffled:
        rng = np.random.default_rng(2)
        fit_label, validation_label = rng.permutation(fit_label), rng.permutation(validation_label)
    return Split(fit, fit_label, validation, validation_label)


def probe_of(*parts: LinearProbe) -> Probe:
    return Probe(parts, pool="flatten", seed=3)


def linear(timestep: int = 10, num_classes: int = 4) -> LinearProbe:
    return fit_linear(split(num_classes), timestep, FIXED_PENALTY)[0]


class TestFit:
    def test_classes_that_lie_apart_are_told_apart(self):
        data = split()
        probe, accuracy = fit_linear(data, 50, 1.0)
        assert accuracy == pytest.approx(1.0, abs=0.02)
        assert probe.timestep == 50
        own = probe_of(probe).confidence([data.validation], data.validation_label)
        wrong = probe_of(probe).confidence([data.validation], (data.validation_label + 1) % 4)
        assert own.dtype == np.float32
        assert own.mean() > 0.95
        assert wrong.max() < 0.5
        assert wrong.mean() < 0.05

    def test_shuffled_labels_teach_nothing(self):
        data = split(shuffled=True)
        probe, accuracy, _ = fit_best_penalty(data, 50)
        assert accuracy == pytest.approx(0.25, abs=0.12)
        confidence = probe_of(probe).confidence([data.validation], data.validation_label)
        assert confidence.mean() == pytest.approx(0.25, abs=0.03)
        assert confidence.std() < 0.1

    def test_two_classes(self):
        data = split(num_classes=2)
        probe, accuracy = fit_linear(data, 10, 0.1)
        assert probe.weight.shape == (2, DIM)
        assert accuracy == pytest.approx(1.0, abs=0.02)
        assert probe.probabilities(data.validation).sum(axis=1) == pytest.approx(1)

    @pytest.mark.parametrize("missing", [0, 1, 3])
    def test_a_class_without_images_has_no_probability(self, missing):
        data = split()
        rows = data.fit_label != missing
        probe, accuracy = fit_linear(
            Split(data.fit[rows], data.fit_label[rows], data.validation, data.validation_label), 10, 0.1
        )
        probabilities = probe.probabilities(data.validation)
        assert probabilities.shape == (240, 4)
        assert (probabilities[:, missing] == 0).all()
        assert accuracy == pytest.approx(0.75, abs=0.02)

    def test_two_classes_with_numbers_that_leave_gaps(self):
        data = split(num_classes=2)
        probe, accuracy = fit_linear(
            Split(data.fit, 3 * data.fit_label, data.validation, 3 * data.validation_label), 0, 1
        )
        assert accuracy == pytest.approx(1.0, abs=0.02)
        assert (probe.probabilities(data.validation)[:, 1:3] == 0).all()

    def test_latents_of_any_scale_and_offset_give_the_same_probe(self):
        data = split(distance=2.0)
        moved = Split(1000 * data.fit + 5, data.fit_label, 1000 * data.validation + 5, data.validation_label)
        first, second = (fit_linear(d, 10, 0.1)[0].probabilities(d.validation) for d in (data, moved))
        assert np.allclose(first, second, atol=0.02)

    def test_a_latent_that_never_changes_is_harmless(self):
        data = split()
        probe, accuracy = fit_linear(
            Split(
                np.pad(data.fit, ((0, 0), (0, 1)), constant_values=7),
                data.fit_label,
                np.pad(data.validation, ((0, 0), (0, 1)), constant_values=7),
                data.validation_label,
            ),
            10,
            0.1,
        )
        assert accuracy == pytest.approx(1.0, abs=0.02)
        assert np.isfinite(probe.probabilities(data.validation[:, [*range(DIM), 0]])).all()

    def test_the_best_penalty_is_the_strongest_of_the_best(self):
        data = split(distance=1.5)
        accuracies = {penalty: fit_linear(data, 10, penalty)[1] for penalty in PENALTIES}
        _, accuracy, penalty = fit_best_penalty(data, 10)
        assert accuracy == max(accuracies.values())
        assert penalty == min(p for p, a in accuracies.items() if a == accuracy)


class TestProbe:
    def test_probabilities_of_several_timesteps_are_averaged(self):
        first, second = linear(10), linear(200)
        h1, _ = gaussians(4, 10, 8.0, seed=5)
        h2, label = gaussians(4, 10, 2.0, seed=6)
        both = probe_of(first, second)
        expected = (first.probabilities(h1) + second.probabilities(h2)) / 2
        assert both.timesteps == (10, 200)
        assert both.probabilities([h1, h2]) == pytest.approx(expected)
        assert both.confidence([h1, h2], label) == pytest.approx(expected[np.arange(40), label])
        with pytest.raises(ValueError):
            both.probabilities([h1])

    def test_without_a_label_there_is_no_confidence(self):
        h, label = gaussians(4, 2, 8.0)
        label[[1, 4]] = -1
        assert np.flatnonzero(np.isnan(probe_of(linear()).confidence([h], label))).tolist() == [1, 4]

    def test_there_is_no_confidence_in_a_class_that_the_probe_does_not_know(self):
        h, label = gaussians(4, 2, 8.0)
        label[[1, 4]] = [4, 9]
        confidence = probe_of(linear()).confidence([h], label)
        assert np.flatnonzero(confidence == 0).tolist() == [1, 4]

    def test_huge_logits_do_not_overflow(self):
        h = np.full((1, DIM), 1e6, np.float32)
        assert np.isfinite(linear().probabilities(h)).all()

    def test_bytes_come_back(self):
        probe = probe_of(linear(10), linear(200))
        again = Probe.from_bytes(*probe.to_bytes())
        assert (again.timesteps, again.pool, again.seed) == ((10, 200), "flatten", 3)
        h, label = gaussians(4, 10, 4.0, seed=7)
        assert (again.confidence([h, h], label) == probe.confidence([h, h], label)).all()
        assert again.to_bytes()[0] == probe.to_bytes()[0]
