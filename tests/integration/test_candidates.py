"""What a selector is given about each candidate: real and synthetic alike, in the order of the ids, as computed."""

from __future__ import annotations

import numpy as np

from autophagy.common.samples import IMAGE, LABEL, LATENT, REAL, SAMPLE_ID, TRAJECTORY_VARIANCE, sample_ids
from autophagy.common.seeds import seed_for
from autophagy.data.tables import to_numpy
from autophagy.denoisers.latents import Encoder
from autophagy.graph import plan_loop
from autophagy.loop import run_loop
from autophagy.stages.payloads import load_denoiser, read_candidates

NUM_REAL = 200
POOL = np.concatenate([sample_ids(0, 3, 5), sample_ids(REAL, 11, 4), sample_ids(0, 60, 2)])


def candidates_of(tiny, store, needs, *settings):
    """The candidates POOL as a selector with these needs reads them, and the experiment."""
    experiment = tiny(*settings)
    run_loop(experiment, store)
    inputs = {role: made.ensure(store) for role, made in plan_loop(experiment)[1]["select"].inputs.items()}
    return read_candidates(inputs, POOL, frozenset(needs)), experiment, inputs


def sorted_table(artifact, part, columns):
    table = artifact.read_table(part, columns=[SAMPLE_ID, *columns]).sort_by(SAMPLE_ID)
    return to_numpy(table, SAMPLE_ID), [to_numpy(table, name) for name in columns]


def test_columns_that_nobody_needs_are_empty(tiny, shared_store):
    candidates, _, _ = candidates_of(tiny, shared_store, ())
    np.testing.assert_array_equal(candidates.sample_id, np.sort(POOL))
    assert all(getattr(candidates, name) is None for name in ("features", "latent", "pixels", "confidence"))


def test_latents_of_all_candidates_are_kept_where_a_selector_reads_them(tiny, shared_store):
    settings = ("selection.strategy=greedy", "selection.feature_space=latent", "name=latents")
    candidates, _, inputs = candidates_of(tiny, shared_store, {"latent"}, *settings)
    ids, (latent,) = sorted_table(inputs["samples/0"], "latents", [LATENT])
    assert len(ids) == 64
    synthetic = ~candidates.is_real
    np.testing.assert_array_equal(candidates.latent[synthetic], latent[np.isin(ids, POOL)].astype(np.float32))
    real_ids, (real,) = sorted_table(inputs["score"], "latents/train", [LATENT])
    assert len(real_ids) == NUM_REAL
    np.testing.assert_array_equal(candidates.latent[~synthetic], real[np.isin(real_ids, POOL)].astype(np.float32))


def test_pixels_are_those_of_the_images(tiny, shared_store):
    candidates, _, inputs = candidates_of(tiny, shared_store, {"pixels"})
    assert candidates.pixels.dtype == np.uint8
    ids, (images,) = sorted_table(inputs["samples/0"], "images", [IMAGE])
    np.testing.assert_array_equal(candidates.pixels[~candidates.is_real], images[np.isin(ids, POOL)].reshape(7, -1))
    ids, (images,) = sorted_table(inputs["real"], "images/train", [IMAGE])
    np.testing.assert_array_equal(candidates.pixels[candidates.is_real], images[np.isin(ids, POOL)].reshape(4, -1))


def test_denoising_errors_are_those_of_the_denoiser_of_generation_0(tiny, shared_store):
    settings = ("selection.strategy=likelihood", "name=likelihood")
    candidates, experiment, inputs = candidates_of(tiny, shared_store, {"denoising_error"}, *settings)
    ids, (images, label) = sorted_table(inputs["samples/0"], "images", [IMAGE, LABEL])
    rows = np.isin(ids, POOL)
    encoder = Encoder(load_denoiser(plan_loop(experiment)[0]["train"].ensure(shared_store)))
    seed = seed_for(experiment.seed, "denoising-error")
    expected = encoder.denoising_error(images[rows], ids[rows], label[rows], seed=seed)
    np.testing.assert_allclose(candidates.denoising_error[~candidates.is_real], expected, rtol=1e-4)
    assert np.isfinite(candidates.denoising_error).all()


def test_real_images_have_no_trajectory(tiny, shared_store):
    candidates, _, inputs = candidates_of(tiny, shared_store, {"trajectory_variance"})
    np.testing.assert_array_equal(np.isnan(candidates.trajectory_variance), candidates.is_real)
    ids, (variance,) = sorted_table(inputs["samples/0"], "images", [TRAJECTORY_VARIANCE])
    np.testing.assert_array_equal(candidates.trajectory_variance[~candidates.is_real], variance[np.isin(ids, POOL)])
    assert (variance > 0).all()
