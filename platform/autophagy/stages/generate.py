"""Generation: sharded, seeded sampling, scored in the same stream. Images go from sampler to Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from autophagy.common.samples import (
    GENERATION,
    IMAGE,
    IS_REAL,
    LABEL,
    SAMPLE_ID,
    TRAJECTORY_VARIANCE,
    UNLABELLED,
    sample_ids,
    sample_index,
)
from autophagy.common.seeds import seed_for
from autophagy.data.tables import tensor_column
from autophagy.denoisers.config import Generation, Model
from autophagy.denoisers.guidance import Denoisers
from autophagy.denoisers.sampling import sample_images
from autophagy.engine.job import Job, device_of, once
from autophagy.engine.stream import stream
from autophagy.stages.payloads import image_file, latent_file, load_denoiser
from autophagy.stages.scorer import Scorer
from autophagy.store import NUM_FILES


@dataclass(frozen=True)
class Sampler:
    """Expands a shard row {start} to its images. The unit of work, of retry and of randomness."""

    job: Job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard in, its rows of sample_id, label, image and trajectory variance out."""
        job, start = self.job, int(batch["start"][0])
        denoisers = once(f"denoisers {job.key}", lambda: load_denoisers(job))
        generation = Generation(**job.config["generation"])
        info = job.inputs["model"].info
        model, num_classes = Model(**info["model"]), info["shape"][2]
        index = np.arange(start, start + generation.shard_size)
        # Round robin: every prefix of the samples has balanced classes.
        classes = np.setdiff1d(np.arange(num_classes), job.config.get("absent", ()))
        labels = classes[index % len(classes)] if model.conditional else np.full_like(index, UNLABELLED)
        seeds = [seed_for(job.config["seed"], "image", int(i)) for i in index]
        images, variance = sample_images(denoisers, model, generation, labels, seeds)
        ids = sample_ids(job.config["generation_index"], start, len(index))
        return {SAMPLE_ID: ids, LABEL: labels, IMAGE: images.cpu().numpy(), TRAJECTORY_VARIANCE: variance.cpu().numpy()}


def load_denoisers(job: Job) -> Denoisers:
    """The denoisers of a `generate` stage, ready to sample from."""
    auxiliary = job.inputs.get("auxiliary")
    return Denoisers(
        load_denoiser(job.inputs["model"], device_of(job)),
        load_denoiser(auxiliary, device_of(job)) if auxiliary else None,
        job.config.get("extrapolation", 0.0),
    )


@dataclass(frozen=True)
class ScoreAndWrite:
    """Scores the images of one shard and writes them; only a number goes on to the driver."""

    job: Job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard's sample_id, label and image in, the number of files written out."""
        job = self.job
        ids, label = batch[SAMPLE_ID], batch[LABEL]
        scores = once(f"scorer {job.key}", lambda: Scorer(job)).score(batch[IMAGE], ids, label)
        columns = {
            SAMPLE_ID: pa.array(ids),
            GENERATION: pa.array(np.full(len(ids), job.config["generation_index"], np.int32)),
            IS_REAL: pa.array(np.zeros(len(ids), bool)),
            IMAGE: tensor_column(batch[IMAGE]),
            TRAJECTORY_VARIANCE: pa.array(batch[TRAJECTORY_VARIANCE]),
            **scores.columns(),
        }
        start = int(sample_index(ids[:1])[0])
        shard = start // job.config["generation"]["shard_size"]
        # The last shard is made and scored whole, and cut here: no number may depend on how many were asked for.
        count = int(job.count or 0)
        job.attempt.write_table(image_file(shard), pa.table(columns).slice(0, count - start))
        latents = scores.write_latents(job.attempt, latent_file(shard), ids, num_latents(job) - start)
        return {"files": np.array([1 + latents])}


def num_latents(job: Job) -> int:
    """How many of the first images latents are written of."""
    count = int(job.count or 0)
    return count if job.config.get("all_latents") else min(count, job.config["num_latents"])


def generate(job: Job) -> dict[str, Any]:
    """Builder of a `generate` stage: images with latents, confidence and features, written once as they stream by.

    Inputs: `model` of this generation, `auxiliary` if it is moved away from, and of generation 0 `encoder`, `probe` and
    `network`. What another request of the same model has made is taken over.
    """
    count, size = int(job.count or 0), job.config["generation"]["shard_size"]
    taken, copied = _take_over(job, count, size)
    shards = [{"start": start} for start in range(taken * size, count, size)]
    written = [int(row["files"]) for row in stream(job, shards, Sampler, ScoreAndWrite)]
    if len(written) != len(shards):
        raise RuntimeError(f"generate: {len(written)} of {len(shards)} shards came back")
    return {"num_images": count, "taken_over": taken, NUM_FILES: copied + sum(written)}


def _take_over(job: Job, count: int, size: int) -> tuple[int, int]:
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
