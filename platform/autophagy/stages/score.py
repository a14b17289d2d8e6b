"""The scores of the real images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from autophagy.common.samples import GENERATION, IS_REAL, REAL, SAMPLE_ID, TRAJECTORY_VARIANCE
from autophagy.engine.job import Job, once
from autophagy.engine.stream import stream
from autophagy.stages.payloads import real_images
from autophagy.stages.scorer import Scorer
from autophagy.store import NUM_FILES


@dataclass(frozen=True)
class ScoreReal:
    """Scores one shard of the real images and writes the scores; the images stay where they are."""

    job: Job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard {split, start, count} in, its number of images and of files out."""
        job, split = self.job, str(batch["split"][0])
        start, count = int(batch["start"][0]), int(batch["count"][0])
        images, label, ids = real_images(job.inputs, split, start, count)
        scores = once(f"scorer {job.key}", lambda: Scorer(job)).score(images, ids, label)
        columns = {
            SAMPLE_ID: pa.array(ids),
            GENERATION: pa.array(np.full(len(ids), REAL, np.int32)),
            IS_REAL: pa.array(np.ones(len(ids), bool)),
            TRAJECTORY_VARIANCE: pa.array(np.full(len(ids), np.nan, np.float32)),  # nothing was sampled
            **scores.columns(),
        }
        job.attempt.write_table(f"{split}/shard-{start:09d}.parquet", pa.table(columns))
        wanted = job.config["num_latents"] if split == "held_out" else 0
        if job.config.get("all_latents"):
            wanted = start + count
        latents = scores.write_latents(job.attempt, f"latents/{split}/shard-{start:09d}.parquet", ids, wanted - start)
        return {"count": np.array([count]), "files": np.array([1 + latents])}


def score_real(job: Job) -> dict[str, Any]:
    """Builder of the `score` stage: features and confidence of the real images. Inputs as for `generate`."""
    sizes = job.inputs["real"].info["sizes"]
    size = job.config["shard_size"]
    shards = [
        {"split": split, "start": start, "count": min(size, count - start)}
        for split, count in sizes.items()
        if split != "fresh" or job.config.get("fresh")
        for start in range(0, count, size)
    ]
    done = list(stream(job, shards, ScoreReal))
    count, wanted = sum(int(row["count"]) for row in done), sum(int(str(shard["count"])) for shard in shards)
    if count != wanted:
        raise RuntimeError(f"score: {count} of {wanted} images came back")
    return {NUM_FILES: sum(int(row["files"]) for row in done)}
