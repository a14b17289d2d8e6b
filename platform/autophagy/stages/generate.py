"""`generate`: sharded, seeded sampling, scored in the same stream. Images go from sampler to Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa

from autophagy.common.samples import (
    IMAGE,
    LABEL,
    SAMPLE_ID,
    TRAJECTORY_VARIANCE,
    UNLABELLED,
    sample_ids,
    sample_index,
)
from autophagy.common.section import since
from autophagy.common.seeds import seed_for
from autophagy.config import Experiment
from autophagy.corrections import SelfTrained, Sims
from autophagy.data.shares import classes_in_turn
from autophagy.data.tables import tensor_column, to_numpy
from autophagy.denoisers.config import Generation
from autophagy.engine.job import Info, Job, Resources, once
from autophagy.engine.stage import Stage
from autophagy.engine.stream import stream
from autophagy.stages.payloads import (
    IMAGES,
    image_file,
    latent_file,
    load_denoiser,
    sample_columns,
    told_labels,
    write_latents,
)
from autophagy.stages.scorer import VERSION, Scorer, Scoring, scoring
from autophagy.store import NUM_FILES


class Config(Scoring):
    """What a `generate` stage is keyed by."""

    generation: Generation  # how samples are made
    generation_index: int  # that they are of
    seed: int
    absent: Annotated[tuple[int, ...], since(())] = ()  # classes that nobody asks for
    extrapolation: Annotated[float | None, since(None)] = None  # weight of SIMS


def stage(e: Experiment, k: int, inputs: Mapping[str, Stage]) -> Stage:
    """The samples of generation k; only the last one's are not candidates of a next.

    Args:
        e: The loop.
        k: The generation.
        inputs: As `build` has them.
    """
    candidates = e.num_candidates if k < e.generations else 0
    weight = e.correction.weight if isinstance(e.correction, Sims) and "auxiliary" in inputs else None
    config = _config(e, k, "generate", scoring(e), weight)
    return _stage(e, k, config, inputs, max(candidates, e.metrics.num_samples))


def auxiliary_stage(e: Experiment, k: int, inputs: Mapping[str, Stage], correction: SelfTrained) -> Stage:
    """What the model of generation k makes for an auxiliary model to be trained on."""
    config = _config(e, k, "auxiliary", scoring(e) | {"num_latents": 0})
    return _stage(e, k, config, inputs, correction.num_samples or e.budget)


def _config(e: Experiment, k: int, purpose: str, scores: dict[str, object], weight: float | None = None) -> Config:
    return Config.model_validate(
        scores
        | {
            "generation": e.generation,
            "generation_index": k,
            "seed": seed_for(e.seed, purpose, k),
            "absent": e.data.absent(k),
            "extrapolation": weight,
        }
    )


def _stage(e: Experiment, k: int, config: Config, inputs: Mapping[str, Stage], count: int) -> Stage:
    return Stage(
        "generate",
        build,
        config,
        inputs,
        Resources(use_gpu=e.generation.use_gpu, num_actors=e.generation.num_actors),
        VERSION,
        generation=k,
        place="driver",
        count=count,
        work=count * e.generation.num_inference_steps,
    )


class Source:
    """What a `generate` stage samples from."""

    def __init__(self, job: Job[Config]) -> None:
        from autophagy.denoisers.guidance import guide

        config, use_gpu = job.config, job.resources.use_gpu
        self.denoiser = load_denoiser(job.inputs["model"], use_gpu)
        auxiliary = load_denoiser(job.inputs["auxiliary"], use_gpu) if "auxiliary" in job.inputs else None
        self.predict = guide(self.denoiser, config.generation.guidance_scale, auxiliary, config.extrapolation or 0.0)
        self.weights = self._weights(job)

    def _weights(self, job: Job[Config]) -> np.ndarray:
        """How often each class is asked for, float [C], up to a factor."""
        weights = np.ones(self.denoiser.shape.num_classes)
        if self.denoiser.null is not None and job.config.generation.class_shares == "real":
            table = job.inputs["real"].read_table(f"{IMAGES}/train", columns=[SAMPLE_ID, LABEL])
            label = told_labels(job.inputs, to_numpy(table, SAMPLE_ID), to_numpy(table, LABEL))
            weights = np.bincount(label, minlength=len(weights)).astype(float)
        weights[list(job.config.absent)] = 0
        return weights


@dataclass(frozen=True)
class Sampler:
    """Expands a shard row {start} to its images. The unit of work, of retry and of randomness."""

    job: Job[Config]

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard in, its rows of sample_id, label, image and trajectory variance out."""
        from autophagy.denoisers.sampling import sample_images

        config, start = self.job.config, int(batch["start"][0])
        source = once(f"source {self.job.key}", lambda: Source(self.job))
        stop = start + config.generation.shard_size
        ids = sample_ids(config.generation_index, start, stop - start)
        conditional = source.denoiser.null is not None
        labels = classes_in_turn(source.weights, start, stop) if conditional else np.full_like(ids, UNLABELLED)
        images, variance = sample_images(source.denoiser, source.predict, config.generation, labels, ids, config.seed)
        return {SAMPLE_ID: ids, LABEL: labels, IMAGE: images, TRAJECTORY_VARIANCE: variance}


@dataclass(frozen=True)
class ScoreAndWrite:
    """Scores the images of one shard and writes them; only a number goes on to the driver."""

    job: Job[Config]

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard's sample_id, label and image in, the number of files written out."""
        job, ids = self.job, batch[SAMPLE_ID]
        scorer = once(f"scorer {job.key}", lambda: Scorer(job.config, job.inputs, job.resources.use_gpu))
        scores = scorer.score(batch[IMAGE], ids, batch[LABEL])
        columns = {
            **sample_columns(ids),
            IMAGE: tensor_column(batch[IMAGE]),
            TRAJECTORY_VARIANCE: pa.array(batch[TRAJECTORY_VARIANCE]),
            **scores.columns(),
        }
        start = int(sample_index(ids[:1])[0])
        shard = start // job.config.generation.shard_size
        # The last shard is made and scored whole, and cut here: no number may depend on how many were asked for.
        count = int(job.count or 0)
        job.attempt.write_table(image_file(shard), pa.table(columns).slice(0, count - start))
        wanted = num_latents(job) - start
        return {"files": np.array([1 + write_latents(job.attempt, latent_file(shard), ids, scores.latent, wanted)])}


def num_latents(job: Job[Config]) -> int:
    """How many of the first images latents are written of."""
    count = int(job.count or 0)
    return count if job.config.all_latents else min(count, job.config.num_latents)


def build(job: Job[Config]) -> Info:
    """Make images with latents, confidence and features, written once as they stream by.

    Inputs: `model`, which samples; `auxiliary`, where a correction moves away from it; and those of `scored_by`. What
    another request of the same model has made is taken over.
    """
    count, size = int(job.count or 0), job.config.generation.shard_size
    taken, copied = _take_over(job, count, size)
    shards = [{"start": start} for start in range(taken * size, count, size)]
    rows, cost = stream(job, shards, Sampler, ScoreAndWrite)
    written = [int(row["files"]) for row in rows]
    if len(written) != len(shards):
        raise RuntimeError(f"generate: {len(written)} of {len(shards)} shards came back")
    return {"num_images": count, "taken_over": taken, NUM_FILES: copied + sum(written)} | cost


def _take_over(job: Job[Config], count: int, size: int) -> tuple[int, int]:
    """Copy the whole shards that another request of the same model has made: how many leading ones, and files."""
    base = job.key.rsplit("-", 1)[0]
    others = job.store.siblings("generate", base + "-")
    artifact = job.store.open("generate", max(others)) if others else None
    if artifact is None:
        return 0, 0
    whole, copied = min(count, artifact.info["num_images"]) // size, 0
    for shard in range(whole):
        names = [image_file(shard)]
        if "probe" in job.inputs and shard * size < num_latents(job):
            names.append(latent_file(shard))
        if not all(map(artifact.is_whole, names)):
            return shard, copied  # damaged since it was made: from here on all is made anew
        for name in names:
            job.attempt.write_bytes(name, artifact.read_bytes(name))
        copied += len(names)
    return whole, copied
