"""Which images a generation is trained on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from autophagy.common.samples import GENERATION, SAMPLE_ID, sample_ids
from autophagy.common.seeds import rng_for
from autophagy.engine.job import Job
from autophagy.scenarios import Pool, make_scenario
from autophagy.selection import make_selector
from autophagy.stages.payloads import _unseen, read_candidates, real_ids


def select(job: Job) -> dict[str, Any]:
    """Builder of a `select` stage: the ids that generation k is trained on, in order of preference.

    Inputs: `real`, `score` (real images) and `samples/j` of every generation whose samples may be candidates; and
    `rescore/j`, if the probe was refitted, which together score every candidate once.
    """
    config, generation = job.config, job.config["generation"]
    scenario, selector = make_scenario(config["scenario"]), make_selector(config["selection"])
    wanted = candidate_ids(job)
    candidates = read_candidates(job, wanted, selector.needs)
    if selector.compares_with_real:
        reference = read_candidates(job, real_ids(job.inputs, "train", _unseen(job)), selector.needs)
        candidates = dataclasses.replace(candidates, reference=reference)
    num_keep = scenario.num_keep(len(wanted), config["budget"])
    candidates = dataclasses.replace(candidates, score=selector.scores(candidates))
    kept = selector.select(candidates, num_keep, rng_for(config["seed"], "select", generation))
    columns = {SAMPLE_ID: candidates.sample_id[kept], GENERATION: candidates.generation[kept]}
    if candidates.score is not None:
        columns["score"] = candidates.score[kept]
    job.attempt.write_table("kept.parquet", pa.table(columns))
    return {
        "num_candidates": len(wanted),
        "num_kept": len(kept),
        "real_share_of_candidates": float(candidates.is_real.mean()),
        "real_share": float(candidates.is_real[kept].mean()),
    }


def candidate_ids(job: Job) -> np.ndarray:
    """Ids of the candidates of a generation, int64, sorted: what its scenario says, of the classes there are by then.

    Samples need no look: they are asked for only of classes that have appeared.
    """
    config, generation = job.config, job.config["generation"]
    made = tuple(sample_ids(j, 0, config["num_candidates"]) for j in range(generation))
    pool = Pool(real_ids(job.inputs, "train", _unseen(job)), real_ids(job.inputs, "fresh"), made)
    rng = rng_for(config["seed"], "candidates", generation)
    return make_scenario(config["scenario"]).candidates(pool, rng)
