"""Classes that appear and vanish: what is asked for, what may be chosen, and what is learnt before and after."""

from __future__ import annotations

import dataclasses
import math
import shutil

import numpy as np
import pytest

from autophagy.common.errors import UserError
from autophagy.common.samples import CONFIDENCE, LABEL, REAL, SAMPLE_ID, origin_generation
from autophagy.data.tables import to_numpy
from autophagy.engine.stage import Stage
from autophagy.graph import plan_loop
from autophagy.loop import run_loop
from autophagy.runs.folder import read_records
from autophagy.stages.payloads import KEPT, Inputs, kept_ids, read_candidates, read_images, real_ids
from autophagy.stages.select import candidate_ids
from autophagy.store import StageStore
from autophagy.store.upkeep import ls

NUM_REAL, BUDGET = 200, 64  # of `tiny`
APPEAR, VANISH = {7: 1, 9: 2}, {3: 2}
ACTIVE = [
    [0, 1, 2, 3, 4, 5, 6, 8],
    [0, 1, 2, 3, 4, 5, 6, 7, 8],
    [0, 1, 2, 4, 5, 6, 7, 8, 9],
    [0, 1, 2, 4, 5, 6, 7, 8, 9],
]
SETTINGS = ("generations=3", f"data.appear={APPEAR}", f"data.vanish={VANISH}", "name=dynamic")


@pytest.fixture(scope="module")
def dynamic(tiny, shared_store):
    """The plan and the records of a finished loop on a schedule."""
    return plan_loop(tiny(*SETTINGS)), run_loop(tiny(*SETTINGS), shared_store)


def inputs_of(stage: Stage, store: StageStore) -> Inputs:
    """What the builder of a stage reads."""
    return {role: made.ensure(store) for role, made in stage.inputs.items()}


def labels_of(inputs: Inputs, ids: np.ndarray) -> np.ndarray:
    return read_images(inputs, ids)[1]


def test_samples_are_asked_for_of_the_classes_there_are_in_the_shares_of_the_real_set(dynamic, shared_store):
    plan, _ = dynamic
    inputs = inputs_of(plan[0]["score"], shared_store)
    counts = np.bincount(labels_of(inputs, real_ids(inputs, "train")), minlength=10)
    assert len(set(counts.tolist())) > 3
    for active, stages in zip(ACTIVE, plan, strict=True):
        table = stages["generate"].ensure(shared_store).read_table("images").sort_by(SAMPLE_ID)
        asked = np.bincount(to_numpy(table, LABEL), minlength=10)
        shares = np.where(np.isin(np.arange(10), active), counts, 0) / counts[active].sum()
        assert np.abs(asked - BUDGET * shares).max() <= 1
        assert asked.sum() == BUDGET


def test_balanced_samples_take_turns(tiny, shared_store):
    settings = (*SETTINGS[1:3], "generations=0", "generation.class_shares=balanced", "name=balanced")
    table = plan_loop(tiny(*settings))[0]["generate"].ensure(shared_store).read_table("images").sort_by(SAMPLE_ID)
    assert to_numpy(table, LABEL).tolist() == [ACTIVE[0][i % 8] for i in range(BUDGET)]


def test_a_real_image_is_no_candidate_before_its_class_appears_and_stays_one_after_it_vanished(dynamic, shared_store):
    plan, records = dynamic
    for k in (1, 2, 3):
        stage = plan[k]["select"]
        inputs = inputs_of(stage, shared_store)
        real = real_ids(inputs, "train")
        there = np.array([APPEAR.get(c, 0) <= k for c in labels_of(inputs, real)])
        assert 0 < there.sum() <= NUM_REAL
        candidates = candidate_ids(stage.config, inputs)
        origin = origin_generation(candidates)
        np.testing.assert_array_equal(candidates[origin == REAL], real[there])
        assert len(candidates) == there.sum() + k * BUDGET
        assert shared_store.open("select", records[k].stages["select"]).info["num_candidates"] == len(candidates)
        # Class 3 has vanished in generation 2: real images and samples of generations 0 and 1 are still there.
        assert set(origin[labels_of(inputs, candidates) == 3].tolist()) == set(range(-1, min(k, 2)))


def test_generation_0_learns_from_the_classes_there_are(dynamic, shared_store, tiny):
    plan, records = dynamic
    inputs = inputs_of(plan[0]["score"], shared_store)
    known = np.isin(labels_of(inputs, real_ids(inputs, "train")), ACTIVE[0]).sum()
    assert shared_store.open("train", records[0].stages["train"]).info["num_images"] == known < NUM_REAL
    plain = read_records(shared_store, "tiny")
    assert records[0].stages["feature_network"] == plain[0].stages["feature_network"]
    table = plan[0]["score"].ensure(shared_store).read_table("train")
    new = np.isin(to_numpy(table, LABEL), list(APPEAR))
    assert new.any()
    np.testing.assert_array_equal(to_numpy(table, CONFIDENCE) == 0, new)


def test_what_is_learnt_of_new_classes_is_measured(dynamic, shared_store):
    plan, records = dynamic
    shares = []
    for k in (1, 2, 3):
        inputs = inputs_of(plan[k]["evaluate"], shared_store)
        shares.append(np.isin(labels_of(inputs, kept_ids(inputs)), list(APPEAR)).mean())
    assert [r.metrics["new_class_share"] for r in records] == pytest.approx([0, *shares])
    assert max(shares) > 0
    agreement = [r.metrics["new_class_agreement"] for r in records]
    assert math.isnan(agreement[0])
    assert all(0 <= a <= 1 for a in agreement[1:])
    assert all(math.isnan(r.metrics["new_class_share"]) for r in read_records(shared_store, "tiny"))


def test_a_selector_compares_with_real_images_of_the_classes_there_are(tiny, shared_store):
    settings = (*SETTINGS, "generations=1", "selection.strategy=density_ratio", "scenario.kind=constant_mix", "name=dr")
    run_loop(tiny(*settings), shared_store)
    stage = plan_loop(tiny(*settings))[1]["select"]
    inputs, selector = inputs_of(stage, shared_store), stage.config.selection
    candidates = candidate_ids(stage.config, inputs)
    assert len(candidates) == BUDGET
    assert 9 not in labels_of(inputs, candidates)
    assert (origin_generation(candidates) == REAL).sum() == 19  # round(0.3 * 64), whatever is there to draw from
    real = real_ids(inputs, "train")
    there = read_candidates(inputs, real[labels_of(inputs, real) != 9], selector.needs)
    chosen_from = read_candidates(inputs, candidates, selector.needs)
    expected = selector.scores(dataclasses.replace(chosen_from, reference=there))
    kept = stage.ensure(shared_store).read_table(KEPT).sort_by(SAMPLE_ID)
    np.testing.assert_allclose(to_numpy(kept, "score"), expected, rtol=1e-6)


def test_the_same_numbers_after_a_stage_is_lost(dynamic, tiny, shared_store):
    _, records = dynamic
    for stage in ("train", "generate", "evaluate"):
        shutil.rmtree(f"{shared_store.root}/stages/{stage}/{records[1].stages[stage]}")
    again = run_loop(tiny(*SETTINGS), shared_store)
    assert [r.to_json()["metrics"] for r in again] == [r.to_json()["metrics"] for r in records]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.appear={7: 1, 10: 2}"], r"data\.appear\.10 = 2: the classes are 0 to 9; name one of them"),
        (["data.vanish={12: 2}"], r"data\.vanish\.12 = 2: the classes are 0 to 9"),
        ([f"data.vanish={dict.fromkeys(range(10), 2)}"], r"leave 0 of 10 classes in generation 2, which needs 1"),
        ([f"data.appear={dict.fromkeys(range(9), 2)}"], r"leave 1 of 10 classes in generation 0, which needs 2"),
    ],
)
def test_a_schedule_that_the_data_cannot_follow_is_one_line(tiny, shared_store, settings, message):
    before = {(info.stage, info.key) for info in ls(shared_store)}
    with pytest.raises(UserError, match=message) as error:
        run_loop(tiny(*settings, "name=impossible"), shared_store)
    assert "\n" not in str(error.value)
    assert {(info.stage, info.key) for info in ls(shared_store)} == before
