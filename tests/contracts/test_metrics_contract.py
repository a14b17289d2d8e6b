"""What every distance between sets must obey, and what `measure` promises to its callers."""

import dataclasses
import json
import math

import numpy as np
import pytest

from autophagy.metrics import (
    METRICS,
    Measured,
    density_coverage,
    distribution,
    frechet_distance,
    generalization_score,
    kernel_distance,
    knn_entropy,
    measure,
    memorization_ratio,
    neighbours,
    ole_score,
    precision_recall,
    real_vs_real,
    total_variance,
)
from autophagy.records import GenerationRecord

# Distances between a real and a synthetic set: the larger, the further away. A new one is added here.
DISTANCES = {
    "frechet_distance": frechet_distance,
    "kernel_distance": lambda real, synthetic: kernel_distance(real, synthetic)[0],
    "generalization_score": lambda real, synthetic: generalization_score(synthetic, real),
    "lost precision": lambda real, synthetic: 1 - precision_recall(real, synthetic)[0],
    "lost recall": lambda real, synthetic: 1 - precision_recall(real, synthetic)[1],
    "lost density": lambda real, synthetic: 1 - density_coverage(real, synthetic)[0],
    "lost coverage": lambda real, synthetic: 1 - density_coverage(real, synthetic)[1],
    "no copies": lambda real, synthetic: 1 - memorization_ratio(synthetic, real),
}
distances = pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES.keys())


@pytest.fixture
def sets():
    """A real set; one that differs a little and one that differs much."""
    rng = np.random.default_rng(3)
    real, other = rng.normal(size=(2, 240, 6)).astype(np.float32)
    return real, 0.5 + other, 6 + 2 * other


@distances
def test_identical_then_near_then_far(distance, sets):
    real, near, far = sets
    values = [distance(real, other) for other in (real, near, far)]
    assert all(type(value) is float for value in values)
    if distance is DISTANCES["no copies"]:  # what is not a copy is equally far from being one
        assert values[0] == 0 < 0.9 < values[1] <= values[2]
    else:
        assert values[0] < values[1] < values[2]


@distances
def test_rows_are_a_set(distance, sets):
    real, near, _ = sets
    rng = np.random.default_rng(4)
    shuffled = distance(rng.permutation(real), rng.permutation(near))
    assert shuffled == pytest.approx(distance(real, near), rel=1e-9)


@distances
def test_float32_is_computed_in_float64(distance, sets):
    real, near, _ = sets
    assert distance(real, near) == distance(real.astype(np.float64), near.astype(np.float64))


@distances
def test_inputs_stay_as_they_are(distance, sets):
    real, near = sets[0].astype(np.float64), sets[1].astype(np.float64)
    before = real.copy(), near.copy()
    distance(real, near)
    np.testing.assert_array_equal(real, before[0])
    np.testing.assert_array_equal(near, before[1])


@distances
def test_chunk_size_does_not_matter(distance, sets, monkeypatch):
    real, near, _ = sets
    expected = distance(real, near)
    for module in (neighbours, distribution):
        monkeypatch.setattr(module, "_BLOCK_ELEMENTS", 1000)
    assert distance(real, near) == pytest.approx(expected, rel=1e-12)


@distances
def test_constant_features_give_a_number(distance, sets):
    real = sets[0]
    assert math.isfinite(distance(real, np.ones_like(real)))


@distances
def test_bad_input_is_refused(distance, sets):
    real, near, _ = sets
    broken = near.copy()
    broken[3, 2] = np.nan
    for other in (broken, near[:, :3], near[0], near[:0]):
        with pytest.raises(ValueError):
            distance(real, other)


# measure


def measured(**changes):
    """One generation of 120 images of 3 classes with everything that can be measured."""
    rng = np.random.default_rng(7)
    n, classes = 120, 3
    label = np.arange(n) % classes
    everything = Measured(
        generation=2,
        reference=rng.normal(size=(100, 8)).astype(np.float32),
        synthetic=rng.normal(size=(n, 8)).astype(np.float32),
        synthetic_label=label,
        synthetic_predicted=np.where(np.arange(n) < 30, 0, label),
        synthetic_confidence=np.linspace(0, 1, n, dtype=np.float32),
        synthetic_latent=rng.normal(size=(n, 40)).astype(np.float16),
        synthetic_probe_label=np.where(np.arange(n) < 60, label, (label + 1) % classes),
        training=rng.normal(size=(150, 8)).astype(np.float32),
        training_generation=np.repeat([-1, 0, 1], 50).astype(np.int32),
        reference_label=np.arange(100) % classes,
        reference_confidence=np.full(100, 0.75, dtype=np.float32),
        num_candidates=400,
        num_kept=150,
    )
    return dataclasses.replace(everything, **changes)


def undefined(values):
    return {key for key, value in values.items() if math.isnan(value)}


CONFIDENCE = {key for key in METRICS if key.startswith("confidence")}
NO_LABELS = np.full(120, -1)


def test_everything_is_measured():
    m = measured()
    values = measure(m)
    assert list(values) == [*METRICS, "share_real", "share_0", "share_1"]
    assert undefined(values) == set()
    assert all(type(value) is float for value in values.values())
    assert values["fid"] == frechet_distance(m.reference, m.synthetic)
    assert values["entropy"] == knn_entropy(m.training)
    assert values["entropy_synthetic"] == knn_entropy(m.synthetic)
    assert values["feature_variance"] == total_variance(m.synthetic)
    assert values["generalization_score"] == generalization_score(m.synthetic, m.training)
    assert values["real_baseline"] == generalization_score(m.reference, m.training)
    assert (values["precision"], values["recall"]) == precision_recall(m.reference, m.synthetic)
    assert (values["density"], values["coverage"]) == density_coverage(m.reference, m.synthetic)
    assert values["kid"] == pytest.approx(kernel_distance(m.reference, m.synthetic)[0], abs=values["kid_std"])
    assert values["kid_std"] > 0
    assert values["confidence"] == pytest.approx(0.5)
    assert values["confidence_p10"] == pytest.approx(0.1)
    assert values["confidence_p90"] == pytest.approx(0.9)
    assert values["confidence_real"] == 0.75
    assert values["probe_accuracy"] == 0.5
    assert values["label_agreement"] == pytest.approx(100 / 120)
    assert values["class_histogram"] == pytest.approx(60 / 120 - 0.34, abs=1e-12)
    assert values["kept_share"] == 0.375
    assert values["real_share"] == values["share_real"] == values["share_1"] == pytest.approx(1 / 3)
    assert values["mean_age"] == pytest.approx((3 + 2 + 1) / 3)
    assert values["ole"] > 0


def test_the_same_generation_has_the_same_numbers():
    assert measure(measured()) == measure(measured())
    assert measure(measured(seed=1))["kid"] != measure(measured())["kid"]


def test_ole_ignores_the_scale_of_the_latents():
    latent = measured().synthetic_latent.astype(np.float32)
    scaled = latent * np.linspace(1, 50, len(latent))[:, None]
    values = [measure(measured(synthetic_latent=z))["ole"] for z in (latent, scaled)]
    assert values[0] == pytest.approx(values[1])
    assert values[0] != pytest.approx(ole_score(latent, measured().synthetic_label))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"synthetic_latent": None}, {"ole"}),
        ({"synthetic_probe_label": None}, {"probe_accuracy"}),
        ({"synthetic_predicted": None}, {"label_agreement", "class_histogram"}),
        ({"synthetic_label": NO_LABELS}, {"ole", "probe_accuracy", "label_agreement"}),
        ({"synthetic_confidence": np.full(120, np.nan, np.float32)}, CONFIDENCE - {"confidence_real"}),
        ({"reference_confidence": np.full(100, np.nan, np.float32)}, {"confidence_real"}),
        ({"num_candidates": 0, "num_kept": 0}, {"kept_share"}),
        ({"k": 100}, {"precision", "recall", "density", "coverage"}),
        ({"training": np.zeros((150, 8), np.float32)}, {"memorization_ratio"}),
    ],
)
def test_what_is_undefined_is_nan(changes, expected):
    values = measure(measured(**changes))
    assert undefined(values) == expected
    assert set(METRICS) <= set(values)


def test_one_image_is_too_few_for_most_metrics_and_an_error_for_none():
    m = measured()
    one = {
        field.name: getattr(m, field.name)[:1]
        for field in dataclasses.fields(m)
        if isinstance(getattr(m, field.name), np.ndarray)
    }
    values = measure(dataclasses.replace(m, **one))
    assert undefined(values) >= {"fid", "kid", "precision", "entropy", "memorization_ratio", "ole"}
    assert values["generalization_score"] > 0


def test_broken_features_are_an_error():
    broken = measured().synthetic.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        measure(measured(synthetic=broken))


def test_generation_zero_is_real():
    values = measure(measured(generation=0, training_generation=np.full(150, -1), num_candidates=0))
    assert list(values) == [*METRICS, "share_real"]
    assert values["real_share"] == values["share_real"] == values["mean_age"] == 1


def test_total_collapse_is_measured():
    m = measured()
    values = measure(dataclasses.replace(m, synthetic=np.tile(m.synthetic[:1], (120, 1))))
    assert undefined(values) == set()
    assert all(math.isfinite(value) for value in values.values())
    assert values["duplicate_share"] == pytest.approx(119 / 120)
    assert values["feature_variance"] == pytest.approx(0)
    assert values["entropy_synthetic"] < measure(m)["entropy_synthetic"]


def test_a_record_can_hold_the_metrics():
    metrics = measure(measured(synthetic_latent=None))
    line = json.dumps(GenerationRecord(2, metrics, {}, {}).to_json(), allow_nan=False)
    again = GenerationRecord.from_json(json.loads(line)).metrics
    assert {k: v for k, v in again.items() if k != "ole"} == {k: v for k, v in metrics.items() if k != "ole"}
    assert math.isnan(again["ole"])


def test_real_vs_real_is_the_floor():
    m = measured()
    floor = real_vs_real(m.training, m.reference, m.k, m.seed)
    keys = ["fid", "kid", "precision", "recall", "density", "coverage"]
    assert list(floor) == [f"real_vs_real_{key}" for key in keys]
    astray = measure(measured(synthetic=0.5 * m.synthetic + 3))
    for key in keys:
        sign = 1 if METRICS[key].higher_is_better else -1
        assert sign * floor[f"real_vs_real_{key}"] > sign * astray[key]
    tiny = real_vs_real(m.training[:3], m.reference, m.k, m.seed)
    assert list(tiny) == list(floor)
    assert undefined(tiny) == set(floor) - {"real_vs_real_fid"}


def test_every_metric_has_a_line_for_tables():
    for key, metric in METRICS.items():
        assert key.islower()
        assert 10 < len(metric.description) < 90
        assert metric.higher_is_better in (True, False, None)
