"""`select`: which images a generation is trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import pyarrow as pa

from autophagy.common.samples import GENERATION, SAMPLE_ID, sample_ids
from autophagy.common.section import Section, since
from autophagy.common.seeds import rng_for
from autophagy.config import Experiment
from autophagy.engine.job import Info, Job
from autophagy.engine.stage import Stage
from autophagy.scenarios import AnyScenario, Pool
from autophagy.selection import AnySelector
from autophagy.stages.payloads import KEPT, Inputs, read_candidates, real_ids

VERSION = 1


class Candidacy(Section):
    """What the candidates of a generation are."""

    scenario: AnyScenario
    generation: int  # that they are for
    num_candidates: int  # that every generation makes
    seed: int
    unseen: Annotated[tuple[int, ...], since(())] = ()  # classes that have not appeared yet


def candidacy(e: Experiment, k: int) -> dict[str, Any]:
    """The fields of `Candidacy` for generation k >= 1 of a loop."""
    return {
        "scenario": e.scenario,
        "generation": k,
        "num_candidates": e.num_candidates,
        "seed": e.seed,
        "unseen": e.data.unseen(k),
    }


class Config(Candidacy):
    """What a `select` stage is keyed by."""

    selection: AnySelector
    budget: int


def stage(e: Experiment, k: int, inputs: Mapping[str, Stage]) -> Stage:
    """What generation k >= 1 keeps of its candidates; `inputs` as `build` has them."""
    # How often the probe is refitted shows in the inputs: until it is, loops have their stages in common.
    selection = e.selection.model_copy(update={"refresh": None}) if e.refresh else e.selection
    config = Config(**candidacy(e, k), selection=selection, budget=e.budget)
    return Stage("select", build, config, inputs, version=VERSION, generation=k)


def build(job: Job[Config]) -> Info:
    """Choose the ids that generation k is trained on, in order of preference.

    Inputs: `real`, `score` (real images) and `samples/j` of every generation whose samples may be candidates;
    `rescore/j`, if the probe was refitted, which together score every candidate once; and `labels`, where others than
    the data's are told: images of unseen classes are left out by them (those in `score` are the same).
    """
    config, selector = job.config, job.config.selection
    wanted = candidate_ids(config, job.inputs)
    candidates = read_candidates(job.inputs, wanted, selector.needs)
    if selector.compares_with_real:
        real = real_ids(job.inputs, "train", config.unseen)
        candidates = dataclasses.replace(candidates, reference=read_candidates(job.inputs, real, selector.needs))
    num_keep = config.scenario.num_keep(len(wanted), config.budget)
    candidates = dataclasses.replace(candidates, score=selector.scores(candidates))
    kept = selector.select(candidates, num_keep, rng_for(config.seed, "select", config.generation))
    columns = {SAMPLE_ID: candidates.sample_id[kept], GENERATION: candidates.generation[kept]}
    if candidates.score is not None:
        columns["score"] = candidates.score[kept]
    job.attempt.write_table(KEPT, pa.table(columns))
    return {
        "num_candidates": len(wanted),
        "num_kept": len(kept),
        "real_share_of_candidates": float(candidates.is_real.mean()),
        "real_share": float(candidates.is_real[kept].mean()),
    }


def candidate_ids(config: Candidacy, inputs: Inputs) -> np.ndarray:
    """Ids of the candidates of a generation, int64, sorted: what its scenario says, of the classes there are by then.

    Samples need no look: they are asked for only of classes that have appeared.
    """
    made = tuple(sample_ids(j, 0, config.num_candidates) for j in range(config.generation))
    pool = Pool(real_ids(inputs, "train", config.unseen), real_ids(inputs, "fresh"), made)
    return config.scenario.candidates(pool, rng_for(config.seed, "candidates", config.generation))
