"""`evaluate`: every metric of one generation, from cached features and never from pixels again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import pyarrow as pa

from autophagy.common.samples import CONFIDENCE, FEATURES, LABEL, LATENT, SAMPLE_ID, origin_generation
from autophagy.common.section import Section, since
from autophagy.config import Experiment
from autophagy.data.tables import to_numpy
from autophagy.engine.job import Job
from autophagy.engine.stage import Stage
from autophagy.features.config import Metrics
from autophagy.stages.payloads import (
    IMAGES,
    LATENTS,
    RealInfo,
    first_rows,
    kept_ids,
    read_metrics,
    read_network,
    read_probe,
    read_scores,
    real_ids,
    write_metrics,
)
from autophagy.store import Artifact

VERSION = 3


class Config(Section):
    """What a `evaluate` stage is keyed by."""

    metrics: Metrics
    generation: int
    budget: int
    seed: int
    new_classes: Annotated[tuple[int, ...], since(())] = ()  # those that appear after generation 0


def stage(e: Experiment, k: int, inputs: Mapping[str, Stage]) -> Stage:
    """The metrics of generation k; `inputs` as `build` has them."""
    config = Config(metrics=e.metrics, generation=k, budget=e.budget, seed=e.seed, new_classes=sorted(e.data.appear))
    return Stage("evaluate", build, config, inputs, version=VERSION, generation=k)


def build(job: Job[Config]) -> None:
    """Measure a generation.

    Inputs: those of `scored_by`, `score` (real images) and their `floor`, this generation's `generated` and
    generation 0's `first`, and for generations >= 1 `select` and beside it the `samples/j` it chose from, or the
    corrected `training_set`.

    The reference is the world as it is, with the classes that appear later and those that have vanished: recall and
    coverage miss a class before it appears, rise as it is learnt, and fall again once nobody asks for it. The probe
    and its encoder are those of generation 0 whatever selects, so that confidence is comparable along a curve.
    """
    from autophagy.features.networks import predict_classes
    from autophagy.metrics.measured import Measured, measure
    from autophagy.metrics.structure import total_variance

    config, inputs, seed = job.config, job.inputs, job.config.seed
    k, num_samples = config.metrics.k, config.metrics.num_samples
    sizes = RealInfo.of(inputs["real"]).sizes
    reference = _first(inputs["score"], "held_out", min(num_samples, sizes["held_out"]))
    synthetic = _first(inputs["generated"], IMAGES, num_samples)
    kept, num_candidates = _kept(job)
    training_scores = _training_scores(job, kept)
    training = to_numpy(training_scores, FEATURES)
    latent, probe_label = _latents(job, num_samples)
    # Classes of the reference as the data know them, whatever the loop was told.
    held_out = first_rows(inputs["real"], f"{IMAGES}/held_out", [LABEL], len(reference[FEATURES]))
    values = measure(
        Measured(
            generation=config.generation,
            reference=reference[FEATURES],
            synthetic=synthetic[FEATURES],
            synthetic_label=synthetic[LABEL],
            synthetic_predicted=predict_classes(read_network(inputs["network"]), synthetic[FEATURES]),
            synthetic_confidence=synthetic[CONFIDENCE],
            synthetic_latent=latent,
            synthetic_probe_label=probe_label,
            training=training,
            training_generation=origin_generation(kept),
            training_label=to_numpy(training_scores, LABEL),
            new_classes=config.new_classes,
            reference_label=to_numpy(held_out, LABEL),
            reference_confidence=reference[CONFIDENCE],
            num_candidates=num_candidates,
            num_kept=len(kept),
            budget=config.budget,
            k=k,
            seed=seed,
        )
    )
    first = _first(inputs["first"], IMAGES, num_samples)
    values["total_variance"] = values["feature_variance"] / max(total_variance(first[FEATURES]), 1e-12)
    write_metrics(job.attempt, values | read_metrics(inputs["floor"]))


def _first(artifact: Artifact, part: str, count: int) -> dict[str, np.ndarray]:
    """Scores of the first `count` images of a part, by column."""
    table = first_rows(artifact, part, [LABEL, FEATURES, CONFIDENCE], count)
    return {name: to_numpy(table, name) for name in (LABEL, FEATURES, CONFIDENCE)}


def _kept(job: Job[Config]) -> tuple[np.ndarray, int]:
    """Ids of the training set D_k, sorted, and the number of candidates it was chosen from.

    That is 0 in generation 0, which is trained on R itself, of the classes there are then.
    """
    if "select" not in job.inputs:
        return real_ids(job.inputs, "train", job.config.new_classes), 0
    return np.sort(kept_ids(job.inputs)), job.inputs["select"].info["num_candidates"]


def _training_scores(job: Job[Config], kept: np.ndarray) -> pa.Table:
    """Labels and features of the training set, sorted by sample id."""
    columns = [SAMPLE_ID, LABEL, FEATURES]
    if "training_set" not in job.inputs:
        return read_scores(job.inputs, kept, columns)
    return job.inputs["training_set"].read_table(IMAGES, columns=columns).sort_by(SAMPLE_ID)


def _latents(job: Job[Config], count: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Latents float32 [n, L] of the measured samples and the class the probe sees, int64 [n]; None without a probe."""
    if "probe" not in job.inputs:
        return None, None
    # A selector that reads latents has those of all candidates written.
    latent = to_numpy(first_rows(job.inputs["generated"], LATENTS, [LATENT], count), LATENT).astype(np.float32)
    return latent, read_probe(job.inputs["probe"]).parts[0].probabilities(latent).argmax(axis=1)
