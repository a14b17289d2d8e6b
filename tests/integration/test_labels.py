"""Loops that are told labels which are not the data's own, and loops whose samples get theirs afterwards."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autophagy.common.errors import UserError
from autophagy.common.samples import CONFIDENCE, LABEL, SAMPLE_ID
from autophagy.data.tables import to_numpy
from autophagy.loop import run_loop
from autophagy.runs.folder import read_records
from autophagy.stages.payloads import LABELS


@pytest.mark.parametrize("source", ["ssc_omp", "kmeans"])
def test_clusters_stand_in_for_classes(tiny, shared_store, source):
    settings = (f"data.labels={source}", "selection.strategy=lsf", f"name={source}", "generations=1")
    records = run_loop(tiny(*settings), shared_store)
    plain = read_records(shared_store, "tiny")
    stages = records[0].stages
    assert stages["real"] == plain[0].stages["real"], "the split does not depend on what is told"
    assert stages["feature_network"] == plain[0].stages["feature_network"], "nor does the ruler"
    told = shared_store.open("labels", stages["labels"])
    assert told.info["num_classes"] == 10
    # Better than chance on images whose labels were never looked at.
    assert told.info["agreement"] > 0.2
    table = told.read_table(LABELS).sort_by(SAMPLE_ID)
    scores = shared_store.open("score", stages["score"])
    known = {split: scores.read_table(split).sort_by(SAMPLE_ID) for split in ("train", "held_out")}
    for rows in known.values():
        of = np.isin(to_numpy(table, SAMPLE_ID), to_numpy(rows, SAMPLE_ID))
        np.testing.assert_array_equal(to_numpy(rows, LABEL), to_numpy(table, LABEL)[of])
    own = to_numpy(shared_store.open("real", stages["real"]).read_table("images/train").sort_by(SAMPLE_ID), LABEL)
    assert (to_numpy(known["train"], LABEL) == own).mean() == pytest.approx(told.info["agreement"])
    assert stages["train"] != plain[0].stages["train"]
    assert all(0 <= record.metrics["confidence"] <= 1 for record in records)


def test_the_number_of_clusters_may_differ_from_that_of_classes(tiny, shared_store):
    settings = ("data.labels=kmeans", "data.num_clusters=13", "name=thirteen", "generations=0")
    (record,) = run_loop(tiny(*settings), shared_store)
    assert shared_store.open("labels", record.stages["labels"]).info["num_classes"] == 13
    samples = shared_store.open("generate", record.stages["generate"]).read_table("images")
    assert set(to_numpy(samples, LABEL).tolist()) == set(range(13))


@pytest.mark.parametrize("source", ["predicted", "kmeans"])
def test_samples_of_an_unconditional_model_are_labelled_afterwards(tiny, shared_store, source):
    settings = (f"data.labels={source}", "model.conditional=false", "selection.strategy=lsf", "generations=1")
    records = run_loop(tiny(*settings, f"name=free-{source}"), shared_store)
    table = shared_store.open("generate", records[0].stages["generate"]).read_table("images")
    label, confidence = to_numpy(table, LABEL), to_numpy(table, CONFIDENCE)
    assert label.min() >= 0
    assert np.isfinite(confidence).all()
    if source == "kmeans":  # the class that the probe sees has the largest of ten shares
        assert confidence.min() >= 0.1
        assert "train_unlabelled" not in records[0].stages
    assert math.isfinite(records[1].metrics["fid"])


def test_data_without_labels(tiny, shared_store, tmp_path):
    images = np.random.default_rng(0).integers(256, size=(300, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "grey.npz", images=images)
    settings = (f"data.source=npz:{tmp_path / 'grey.npz'}", "metrics.feature_network=pixels", "generations=1")
    with pytest.raises(UserError, match=r"data\.labels = oracle: data\.source has no labels; set it to ssc_omp"):
        run_loop(tiny(*settings, "name=no-labels"), shared_store)
    with pytest.raises(UserError, match=r"data\.num_clusters = null"):
        run_loop(tiny(*settings, "data.labels=kmeans", "name=no-number"), shared_store)
    settings += ("data.labels=kmeans", "data.num_clusters=4", "selection.strategy=lsf", "selection.per_class=true")
    records = run_loop(tiny(*settings, "name=clustered"), shared_store)
    assert all(math.isfinite(record.metrics["confidence"]) for record in records)
    assert math.isnan(records[0].metrics["label_agreement"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.num_clusters=5"], r"data\.num_clusters = 5 has no meaning with data\.labels = oracle"),
        (["data.labels=predicted", "metrics.feature_network=pixels"], r"data\.labels = predicted needs metrics\."),
        (["data.labels=kmeans", "data.cluster_timestep=1000"], r"data\.cluster_timestep = 1000 must be below"),
        (["data.labels=kmean"], r"data\.labels = 'kmean'"),
        (["correction.kind=simms"], r"correction\.kind = 'simms': unknown \(did you mean sims\?\)"),
        (["correction.kind=sims", "correction.strength=1"], r"correction\.strength = 1: kind sims has no such field"),
        (["model.conditional=false", "selection.strategy=lsf"], r"selection\.strategy = lsf needs labelled samples"),
    ],
)
def test_what_cannot_work_is_one_line(tiny, settings, message):
    with pytest.raises(UserError, match=message) as error:
        tiny(*settings)
    assert "\n" not in str(error.value)
