"""Loops with a correction: what it changes, what it leaves alone, and that it changes it by as much as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from safetensors.numpy import load

from autophagy.common.samples import IMAGE, IS_REAL, LABEL, SAMPLE_ID
from autophagy.data.tables import to_numpy
from autophagy.loop import run_loop
from autophagy.runs.folder import read_records
from autophagy.stages.payloads import CENTRES, WEIGHTS


def ran(tiny, store, *settings):
    """Records of a loop with a correction, and of the same loop without."""
    records = run_loop(tiny(*settings, f"name={'-'.join(s.partition('=')[2] for s in settings)}"), store)
    assert all(math.isfinite(record.metrics["fid"]) for record in records)
    plain = read_records(store, "tiny")
    assert records[0].stages["generate"] == plain[0].stages["generate"], "generation 0 is shared"
    return records, plain


def images_of(artifact):
    table = artifact.read_table("images").sort_by(SAMPLE_ID)
    return to_numpy(table, IMAGE).astype(np.float32), table


def test_self_correction_replaces_synthetic_images_by_centres_of_their_class(tiny, shared_store):
    records, plain = ran(tiny, shared_store, "correction.kind=self_correction", "correction.num_centres=3")
    assert records[1].stages["select"] == plain[1].stages["select"]
    images, table = images_of(shared_store.open("correct", records[1].stages["correct"]))
    real, label = to_numpy(table, IS_REAL), to_numpy(table, LABEL)
    assert real.any()
    assert not real.all()
    centres = shared_store.open("centres", records[0].stages["centres"]).read_table(CENTRES)
    for image, own in zip(images[~real], label[~real], strict=True):
        near = to_numpy(centres, "centre")[to_numpy(centres, LABEL) == own]
        assert len(near) <= 3
        assert np.abs(near - image.ravel()).max(axis=1).min() <= 0.5  # rounded to whole grey levels
    originals, all_real = images_of(shared_store.open("real", records[0].stages["real"]))
    rows = np.isin(to_numpy(all_real, SAMPLE_ID), to_numpy(table, SAMPLE_ID)[real])
    np.testing.assert_array_equal(images[real], originals[rows])
    assert records[1].metrics["entropy"] != plain[1].metrics["entropy"], "measured is what was trained on"
    assert records[1].stages["train"] != plain[1].stages["train"]


def test_a_weak_correction_moves_images_less(tiny, shared_store):
    def distance(strength):
        settings = ("correction.kind=self_correction", f"correction.strength={strength}", "scenario.kind=replace")
        records = run_loop(tiny(*settings, f"name=strength-{strength}", "generations=1"), shared_store)
        images, table = images_of(shared_store.open("correct", records[1].stages["correct"]))
        samples, made = images_of(shared_store.open("generate", records[0].stages["generate"]))
        rows = np.isin(to_numpy(made, SAMPLE_ID), to_numpy(table, SAMPLE_ID))
        return np.abs(images - samples[rows]).mean()

    assert 0 < distance(0.25) < 0.3 * distance(1.0)


@pytest.mark.parametrize("kind", ["sims", "neon"])
def test_an_auxiliary_model_is_fine_tuned_on_samples_of_the_model_itself(tiny, shared_store, kind):
    records, plain = ran(tiny, shared_store, f"correction.kind={kind}", "correction.num_samples=40")
    stages = records[1].stages
    assert stages["train"] == plain[1].stages["train"], "what is trained first is the same"
    samples = shared_store.open("generate", stages["auxiliary_samples"])
    assert samples.info["num_images"] == 40
    assert shared_store.open("train", stages["auxiliary"]).info["num_images"] == 40
    assert stages["generate"] != plain[1].stages["generate"]
    made, unmoved = (images_of(shared_store.open("generate", s["generate"]))[0] for s in (stages, plain[1].stages))
    assert np.abs(made - unmoved).max() > 1
    own = images_of(samples)[0]
    assert np.abs(own - unmoved[: len(own)]).max() > 1, "samples to train on are not those to be measured"


def test_neon_extrapolates_the_weights_and_goes_on_from_them(tiny, shared_store):
    weight = 1.5
    records, _ = ran(tiny, shared_store, "correction.kind=neon", f"correction.weight={weight}")
    stages = records[1].stages
    names = (("train", "train"), ("train", "auxiliary"), ("extrapolate", "extrapolate"))
    own, auxiliary, moved = (load(shared_store.open(s, stages[n]).read_bytes(WEIGHTS)) for s, n in names)
    changed = 0.0
    for name, value in own.items():
        expected = (1 + weight) * value - weight * auxiliary[name]
        np.testing.assert_allclose(moved[name], expected, rtol=1e-5, atol=1e-6)
        changed = max(changed, float(np.abs(moved[name] - value).max()))
    assert changed > 1e-4
    manifest = shared_store.open("train", records[2].stages["train"]).manifest
    assert stages["extrapolate"] in str(manifest["spec"]["inputs"]), "the next generation starts from the moved weights"
