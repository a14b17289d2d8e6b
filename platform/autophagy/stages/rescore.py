"""`rescore`: candidates as a refitted probe sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from autophagy.common.samples import CONFIDENCE, LATENT, REAL, SAMPLE_ID, origin_generation
from autophagy.config import Experiment
from autophagy.data.tables import to_numpy
from autophagy.engine.job import Info, Job, Resources, once
from autophagy.engine.stage import Stage
from autophagy.engine.stream import stream
from autophagy.stages.payloads import (
    LATENTS,
    RESCORED,
    SAMPLES,
    SCORES,
    load_denoiser,
    read_images,
    read_probe,
    several,
    write_latents,
)
from autophagy.stages.select import Candidacy, candidacy, candidate_ids
from autophagy.store import NUM_FILES

VERSION = 2


class Config(Candidacy):
    """What a `rescore` stage is keyed by."""

    shard_size: int
    latents: bool  # whether the selection reads them


def stage(e: Experiment, k: int, inputs: Mapping[str, Stage]) -> Stage:
    """The candidates of generation k that the refitted probe has not scored for an earlier one."""
    config = Config(**candidacy(e, k), shard_size=4 * e.generation.shard_size, latents=LATENT in e.selection.needs)
    resources = Resources(use_gpu=e.generation.use_gpu, num_actors=e.generation.num_actors)
    return Stage("rescore", build, config, inputs, resources, VERSION, generation=k, place="driver")


@dataclass(frozen=True)
class Rescore:
    """Confidence of one shard of candidates, all of one origin, by the probe that was fitted last."""

    job: Job[Config]

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard's sample_id [1, n] in, its number of images and of files out."""
        from autophagy.denoisers.latents import Encoder

        job, ids = self.job, batch[SAMPLE_ID][0]
        origin = int(origin_generation(ids[:1])[0])
        role = "real" if origin == REAL else f"{SAMPLES}{origin}"
        images, label = read_images({n: job.inputs[n] for n in (role, "labels") if n in job.inputs}, ids)
        probe = once(f"probe {job.key}", lambda: read_probe(job.inputs["probe"]))
        use_gpu = job.resources.use_gpu
        encoder = once(f"encoder {job.key}", lambda: Encoder(load_denoiser(job.inputs["encoder"], use_gpu)))
        hidden = [encoder.encode(images, ids, t, pool=probe.pool, seed=probe.seed) for t in probe.timesteps]
        columns = {SAMPLE_ID: pa.array(ids), CONFIDENCE: pa.array(probe.confidence(hidden, label))}
        shard = f"shard-{ids[0]}.parquet"
        job.attempt.write_table(f"{SCORES}/{shard}", pa.table(columns))
        wanted = len(ids) if job.config.latents else 0
        latents = write_latents(job.attempt, f"{LATENTS}/{shard}", ids, hidden[0], wanted)
        return {"count": np.array([len(ids)]), "files": np.array([1 + latents])}


def build(job: Job[Config]) -> Info:
    """Score candidates of a generation, each image once.

    Inputs: `real`, `labels` (where others than the data's are told) and `samples/j`, as for `select`; `encoder` and
    `probe`, those of the generation of the last refit; and `rescore/j`, what the generations since then have scored
    already, which is not scored again.
    """
    scored = [a.read_table(SCORES, columns=[SAMPLE_ID]) for a in several(job.inputs, RESCORED)]
    done = [to_numpy(table, SAMPLE_ID) for table in scored]
    todo = np.setdiff1d(candidate_ids(job.config, job.inputs), np.concatenate([*done, np.empty(0, np.int64)]))
    origin, size = origin_generation(todo), job.config.shard_size
    of_one_origin = [todo[origin == generation] for generation in np.unique(origin)]
    shards = [{SAMPLE_ID: ids[start : start + size]} for ids in of_one_origin for start in range(0, len(ids), size)]
    rows, cost = stream(job, shards, Rescore)
    count = sum(int(row["count"]) for row in rows)
    if count != len(todo):
        raise RuntimeError(f"rescore: {count} of {len(todo)} images came back")
    return {"num_images": count, NUM_FILES: sum(int(row["files"]) for row in rows)} | cost
