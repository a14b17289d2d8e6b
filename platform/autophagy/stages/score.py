"""`score`: features, latents and confidence of the real images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa

from autophagy.common.samples import TRAJECTORY_VARIANCE
from autophagy.common.section import since
from autophagy.config import Experiment
from autophagy.engine.job import Info, Job, Resources, once
from autophagy.engine.stage import Stage, Stages
from autophagy.engine.stream import stream
from autophagy.stages.payloads import LATENTS, RealInfo, real_images, sample_columns, write_latents
from autophagy.stages.scorer import VERSION, Scorer, Scoring, scored_by, scoring
from autophagy.store import NUM_FILES


class Config(Scoring):
    """What a `score` stage is keyed by."""

    shard_size: int
    fresh: Annotated[bool, since(False)] = False  # the fresh images too: they may be many, and few scenarios use them


def stage(e: Experiment, shared: Stages) -> Stage:
    """The scores of the real images, from the stages that all generations share."""
    config = Config(**scoring(e), shard_size=4 * e.generation.shard_size, fresh=bool(e.num_fresh))
    resources = Resources(use_gpu=e.generation.use_gpu, num_actors=e.generation.num_actors)
    return Stage("score", build, config, scored_by(shared), resources, VERSION, place="driver")


@dataclass(frozen=True)
class ScoreReal:
    """Scores one shard of the real images and writes the scores; the images stay where they are."""

    job: Job[Config]

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard {split, start, count} in, its number of images and of files out."""
        job, split = self.job, str(batch["split"][0])
        start, count = int(batch["start"][0]), int(batch["count"][0])
        images, label, ids = real_images(job.inputs, split, start, count)
        scorer = once(f"scorer {job.key}", lambda: Scorer(job.config, job.inputs, job.resources.use_gpu))
        scores = scorer.score(images, ids, label)
        nothing_sampled = pa.array(np.full(len(ids), np.nan, np.float32))
        columns = sample_columns(ids) | {TRAJECTORY_VARIANCE: nothing_sampled} | scores.columns()
        shard = f"{split}/shard-{start:09d}.parquet"
        job.attempt.write_table(shard, pa.table(columns))
        wanted = job.config.num_latents if split == "held_out" else 0
        if job.config.all_latents:
            wanted = start + count
        latents = write_latents(job.attempt, f"{LATENTS}/{shard}", ids, scores.latent, wanted - start)
        return {"count": np.array([count]), "files": np.array([1 + latents])}


def build(job: Job[Config]) -> Info:
    """Score the real images, with the labels that are told. Inputs: those of `scored_by`."""
    size = job.config.shard_size
    shards = [
        {"split": split, "start": start, "count": min(size, count - start)}
        for split, count in RealInfo.of(job.inputs["real"]).sizes.items()
        if split != "fresh" or job.config.fresh
        for start in range(0, count, size)
    ]
    done, cost = stream(job, shards, ScoreReal)
    count, wanted = sum(int(row["count"]) for row in done), sum(int(str(shard["count"])) for shard in shards)
    if count != wanted:
        raise RuntimeError(f"score: {count} of {wanted} images came back")
    return {NUM_FILES: sum(int(row["files"]) for row in done)} | cost
