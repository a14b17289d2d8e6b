"""Candidates as a refitted probe sees them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from autophagy.common.samples import CONFIDENCE, LATENT, REAL, SAMPLE_ID, origin_generation
from autophagy.data.tables import tensor_column, to_numpy
from autophagy.engine.job import Job, device_of, once
from autophagy.engine.stream import stream
from autophagy.stages.payloads import _rescored, load_encoder, read_images, read_probe
from autophagy.stages.select import candidate_ids
from autophagy.store import NUM_FILES


@dataclasses.dataclass(frozen=True)
class Rescore:
    """Confidence of one shard of candidates, all of one origin, by the probe that was fitted last."""

    job: Job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard's sample_id [1, n] in, its number of images and of files out."""
        job, ids = self.job, batch[SAMPLE_ID][0]
        origin = int(origin_generation(ids[:1])[0])
        role = "real" if origin == REAL else f"samples/{origin}"
        inputs = {name: job.inputs[name] for name in (role, "labels") if name in job.inputs}
        images, label = read_images(inputs, ids)
        probe = once(f"probe {job.key}", lambda: read_probe(job.inputs["probe"]))
        encoder = once(
            f"encoder {job.key}", lambda: load_encoder(job.inputs["encoder"], probe.pool, probe.seed, device_of(job))
        )
        hidden = [encoder.encode(images, ids, t) for t in probe.timesteps]
        columns = {SAMPLE_ID: pa.array(ids), CONFIDENCE: pa.array(probe.confidence(hidden, label))}
        job.attempt.write_table(f"scores/shard-{ids[0]}.parquet", pa.table(columns))
        if job.config["latents"]:
            columns = {SAMPLE_ID: pa.array(ids), LATENT: tensor_column(hidden[0].astype(np.float16))}
            job.attempt.write_table(f"latents/shard-{ids[0]}.parquet", pa.table(columns))
        return {"count": np.array([len(ids)]), "files": np.array([2 if job.config["latents"] else 1])}


def rescore(job: Job) -> dict[str, Any]:
    """Builder of a `rescore` stage: candidates of a generation as a refitted probe sees them, each image once.

    Inputs: as for `select`; `encoder` and `probe`, those of the generation of the last refit; and `rescore/j`, what
    the generations since then have scored already, which is not scored again.
    """
    done = [to_numpy(a.read_table("scores", columns=[SAMPLE_ID]), SAMPLE_ID) for a in _rescored(job)]
    todo = np.setdiff1d(candidate_ids(job), np.concatenate([*done, np.empty(0, np.int64)]))
    origin, size = origin_generation(todo), job.config["shard_size"]
    of_one_origin = [todo[origin == generation] for generation in np.unique(origin)]
    shards = [{SAMPLE_ID: ids[start : start + size]} for ids in of_one_origin for start in range(0, len(ids), size)]
    rows = list(stream(job, shards, Rescore))
    count = sum(int(row["count"]) for row in rows)
    if count != len(todo):
        raise RuntimeError(f"rescore: {count} of {len(todo)} images came back")
    return {"num_images": count, NUM_FILES: sum(int(row["files"]) for row in rows)}
