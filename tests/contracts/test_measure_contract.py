"""What `measure` promises to its callers."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from autophagy.common.records import GenerationRecord
from autophagy.metrics import METRICS, metric_of
from autophagy.metrics.distribution import frechet_distance, kernel_distance
from autophagy.metrics.entropy import knn_entropy
from autophagy.metrics.manifold import density_coverage, precision_recall
from autophagy.metrics.measured import Measured, measure, real_vs_real
from autophagy.metrics.memorization import generalization_score
from autophagy.metrics.registry import OTHERS
from autophagy.metrics.structure import effective_rank, ole_score, spectrum, total_variance, vendi_score


def measured(**changes):
    """One generation of 120 images of 3 classes with everything that can be measured."""
    rng = np.random.default_rng(7)
    n, classes = 120, 3
    label = np.arange(n) % classes
    everything = Measured(
        generation=2,
        reference=rng.normal(size=(100, 20)).astype(np.float32),
        synthetic=rng.normal(size=(n, 20)).astype(np.float32),
        synthetic_label=label,
        synthetic_predicted=np.where(np.arange(n) < 30, 0, label),
        synthetic_confidence=np.linspace(0, 1, n, dtype=np.float32),
        synthetic_latent=rng.normal(size=(n, 40)).astype(np.float16),
        synthetic_probe_label=np.where(np.arange(n) < 60, label, (label + 1) % classes),
        training=rng.normal(size=(150, 20)).astype(np.float32),
        training_generation=np.repeat([-1, 0, 1], 50).astype(np.int32),
        reference_label=np.arange(100) % classes,
        reference_confidence=np.full(100, 0.75, dtype=np.float32),
        num_candidates=400,
        num_kept=150,
        training_label=np.arange(150) % classes,
        new_classes=(2,),
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
    assert values["vendi"] == vendi_score(m.synthetic)
    assert values["effective_rank"] == effective_rank(m.synthetic)
    assert [values[f"spectrum_{j}"] for j in (1, 2, 4, 8, 16)] == spectrum(m.synthetic)[[0, 1, 3, 7, 15]].tolist()
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
    assert values["new_class_share"] == pytest.approx(1 / 3)
    assert values["new_class_agreement"] == 0.75  # of 40 asked for class 2 the first 10 look like class 0
    assert values["real_share"] == values["share_real"] == values["share_1"] == pytest.approx(1 / 3)
    assert values["mean_age"] == pytest.approx((3 + 2 + 1) / 3)
    assert values["ole"] > 0


def test_tensors_are_measured_like_arrays():
    m = measured()
    names = ("reference", "synthetic", "synthetic_latent", "training")
    tensors = {name: torch.from_numpy(getattr(m, name)) for name in names}
    assert measure(dataclasses.replace(m, **tensors)) == measure(m)


def test_the_same_generation_has_the_same_numbers():
    assert measure(measured()) == measure(measured())
    assert measure(measured(seed=1))["kid"] != measure(measured())["kid"]


def test_ole_ignores_the_scale_of_the_latents():
    latent = measured().synthetic_latent.astype(np.float32)
    scaled = latent * np.linspace(1, 50, len(latent))[:, None]
    values = [measure(measured(synthetic_latent=z))["ole"] for z in (latent, scaled)]
    assert values[0] == pytest.approx(values[1])
    assert values[0] != pytest.approx(ole_score(latent, measured().synthetic_label))


@pytest.mark.parametrize("key", METRICS)
def test_a_metric_takes_what_it_needs_and_no_more(key):
    m, needs = measured(), METRICS[key].needs
    alone = Measured(m.reference, m.synthetic, m.generation)
    assert not math.isnan(measure(dataclasses.replace(alone, **{name: getattr(m, name) for name in needs}))[key])
    for name in needs:
        assert math.isnan(measure(dataclasses.replace(m, **{name: getattr(alone, name)}))[key])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"synthetic_latent": None}, {"ole"}),
        ({"synthetic_probe_label": None}, {"probe_accuracy"}),
        ({"synthetic_predicted": None}, {"label_agreement", "class_histogram", "new_class_agreement"}),
        ({"synthetic_label": NO_LABELS}, {"ole", "probe_accuracy", "label_agreement", "new_class_agreement"}),
        ({"new_classes": ()}, {"new_class_share", "new_class_agreement"}),
        ({"new_classes": (5,)}, {"new_class_agreement"}),
        ({"synthetic_confidence": np.full(120, np.nan, np.float32)}, CONFIDENCE - {"confidence_real"}),
        ({"reference_confidence": np.full(100, np.nan, np.float32)}, {"confidence_real"}),
        ({"num_candidates": 0, "num_kept": 0}, {"kept_share"}),
        ({"k": 100}, {"precision", "recall", "density", "coverage"}),
        ({"training": np.zeros((150, 20), np.float32)}, {"memorization_ratio"}),
        (
            {"synthetic": np.eye(120, 3), "reference": np.eye(100, 3), "training": np.eye(150, 3)},
            {"spectrum_4", "spectrum_8", "spectrum_16"},
        ),
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
    assert undefined(values) >= {"fid", "kid", "precision", "entropy", "memorization_ratio", "ole", "spectrum_1"}
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
    assert values["spectrum_1"] == values["effective_rank"] == 0
    assert values["vendi"] == pytest.approx(1)
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
    assert list(floor) == [f"real_vs_real_{key}" for key in keys] == [METRICS[key].floor for key in keys]
    astray = measure(measured(synthetic=0.5 * m.synthetic + 3))
    for key in keys:
        sign = 1 if METRICS[key].higher_is_better else -1
        assert sign * floor[f"real_vs_real_{key}"] > sign * astray[key]
    tiny = real_vs_real(m.training[:3], m.reference, m.k, m.seed)
    assert list(tiny) == list(floor)
    assert undefined(tiny) == set(floor) - {"real_vs_real_fid"}


def test_every_number_of_a_record_has_a_line_for_tables():
    assert metric_of("share_12") == metric_of("share_0") != metric_of("share_real")
    assert metric_of("never_heard_of") == ("never heard of", None, (), None)
    for key, metric in (METRICS | OTHERS).items():
        assert metric_of(key) is metric
        assert key.islower()
        assert metric.floor is None or metric_of(metric.floor) in (METRICS | OTHERS).values()
        assert 10 < len(metric.description) < 90
        assert metric.higher_is_better in (True, False, None)
