"""A probe that is refitted while a loop runs: who scores what, who is chosen, and what stays comparable."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from autophagy.common.samples import CONFIDENCE, LATENT, SAMPLE_ID
from autophagy.data.tables import to_numpy
from autophagy.denoisers.latents import Encoder
from autophagy.engine.stage import Stage, Stages
from autophagy.graph import plan_loop
from autophagy.loop import run_loop
from autophagy.stages.payloads import (
    KEPT,
    RESCORED,
    SAMPLES,
    SCORES,
    Inputs,
    load_denoiser,
    read_candidates,
    read_images,
    read_probe,
    several,
)
from autophagy.store import StageStore
from autophagy.store.upkeep import ls

NUM_REAL, BUDGET = 200, 64  # of `tiny`
EVERY_2 = ("generations=4", "selection.strategy=lsf", "selection.refresh=2", "name=refreshed")


@pytest.fixture(scope="module")
def refreshed(tiny, shared_store):
    """The plan and the records of a finished loop whose probe is refitted in generation 2."""
    return plan_loop(tiny(*EVERY_2)), run_loop(tiny(*EVERY_2), shared_store)


def inputs_of(stage: Stage, store: StageStore) -> Inputs:
    """What the builder of a stage reads."""
    return {role: made.ensure(store) for role, made in stage.inputs.items()}


def seen_by(stages: Stages, store: StageStore, inputs: Inputs, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence [n] and latents [n, L] of images by the model and the probe of a generation, computed here."""
    encoder = Encoder(load_denoiser(stages["train"].ensure(store)))
    probe = read_probe(stages["probe"].ensure(store))
    images, label = read_images(inputs, ids)
    hidden = [encoder.encode_batch(images, ids, t, pool=probe.pool, seed=probe.seed) for t in probe.timesteps]
    return probe.confidence(hidden, label), hidden[0]


def test_every_candidate_is_scored_once_by_the_last_probe(refreshed, shared_store):
    plan, _ = refreshed
    # R and S_0 .. S_2 for generation 3; for generation 4 only S_3 is new.
    assert plan[3]["rescore"].ensure(shared_store).info["num_images"] == NUM_REAL + 3 * BUDGET
    assert plan[4]["rescore"].ensure(shared_store).info["num_images"] == BUDGET
    for k in (3, 4):
        inputs = inputs_of(plan[k]["select"], shared_store)
        ids = np.concatenate([to_numpy(a.read_table(SCORES), SAMPLE_ID) for a in several(inputs, RESCORED)])
        assert len(ids) == len(set(ids.tolist())) == NUM_REAL + k * BUDGET
        candidates = read_candidates(inputs, np.sort(ids), frozenset({CONFIDENCE}))
        expected, _ = seen_by(plan[2], shared_store, inputs, candidates.sample_id)
        np.testing.assert_allclose(candidates.confidence, expected, rtol=1e-3, atol=1e-6)
        first, _ = seen_by(plan[0], shared_store, inputs, candidates.sample_id)
        assert np.abs(candidates.confidence - first).max() > 0.1
        # What is kept is what this probe is surest of.
        kept = plan[k]["select"].ensure(shared_store).read_table(KEPT)
        best = np.lexsort((candidates.sample_id, -candidates.confidence))[:BUDGET]
        assert to_numpy(kept, SAMPLE_ID).tolist() == candidates.sample_id[best].tolist()
        np.testing.assert_array_equal(to_numpy(kept, "score"), candidates.confidence[best])


def test_metrics_stay_with_the_probe_of_generation_0(refreshed, shared_store):
    plan, records = refreshed
    for k, stages in enumerate(plan):
        table = stages["generate"].ensure(shared_store).read_table("images")
        assert records[k].metrics["confidence"] == pytest.approx(to_numpy(table, CONFIDENCE).mean(), rel=1e-6)
    assert len({record.metrics["confidence_real"] for record in records}) == 1
    fitted = [k for k, record in enumerate(records) if "probe_accuracy_held_out" in record.metrics]
    assert fitted == [0, 2]


def test_until_the_first_refit_the_loop_is_the_one_without(refreshed, tiny, shared_store):
    _, records = refreshed
    before = {(info.stage, info.key) for info in ls(shared_store)}
    fixed = run_loop(tiny(*EVERY_2, "selection.refresh=null", "name=fixed"), shared_store)
    built = {stage for stage, _ in {(info.stage, info.key) for info in ls(shared_store)} - before}
    assert built == {"select", "train", "generate", "evaluate"}
    assert [r.stages["generate"] == s.stages["generate"] for r, s in zip(records, fixed, strict=True)] == [
        *(True, True, True),
        *(False, False),
    ]


def test_only_what_can_be_chosen_is_scored_anew(tiny, shared_store):
    for kind, expected in (("replace", BUDGET), ("constant_mix", BUDGET), ("augment", NUM_REAL + BUDGET)):
        settings = (*EVERY_2, "selection.refresh=1", "generations=2", f"scenario.kind={kind}", f"name=refresh-{kind}")
        records = run_loop(tiny(*settings), shared_store)
        assert shared_store.open("rescore", records[2].stages["rescore"]).info["num_images"] == expected


def test_a_set_score_takes_latents_of_the_last_model(tiny, shared_store):
    settings = ("generations=2", "selection.strategy=ole", "selection.refresh=1", "name=refresh-ole")
    run_loop(tiny(*settings), shared_store)
    plan = plan_loop(tiny(*settings))
    inputs = inputs_of(plan[2]["select"], shared_store)
    ids = to_numpy(inputs[f"{SAMPLES}0"].read_table("images"), SAMPLE_ID)[:9]
    candidates = read_candidates(inputs, ids, frozenset({LATENT}))
    _, expected = seen_by(plan[1], shared_store, inputs, candidates.sample_id)
    np.testing.assert_allclose(candidates.latent, expected, rtol=2e-3, atol=2e-3)


def test_the_same_numbers_after_a_stage_is_lost_with_actors_or_without(refreshed, tiny, shared_store):
    _, records = refreshed
    for k, stage in ((2, "probe"), (3, "rescore"), (3, "select"), (4, "rescore"), (4, "evaluate")):
        shutil.rmtree(f"{shared_store.root}/stages/{stage}/{records[k].stages[stage]}")
    again = run_loop(tiny(*EVERY_2, "generation.num_actors=1"), shared_store)
    assert [r.to_json()["metrics"] for r in again] == [r.to_json()["metrics"] for r in records]
