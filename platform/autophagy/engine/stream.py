"""Rows through the steps of one Ray Data stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from autophagy.common.errors import UserError
from autophagy.engine.cluster import ARRIVAL_SECONDS, num_cpus
from autophagy.engine.job import Info, Job, Step

SECONDS = "seconds"  # column of a stream: what a row has cost


def stream(job: Job[Any], rows: list[dict[str, Any]], *steps: type[Step]) -> tuple[list[dict[str, Any]], Info]:
    """Rows through one Ray Data stream: each step is made from the job, and maps one batch to another.

    One process takes a row through all steps, so that images stay where they are made. With `num_actors` in the job's
    resources that many processes of their own share the rows; with 0 pooled ones, which are there already when the
    next stream starts. On GPUs each has one to itself, and keeps it warm.

    Returns:
        What the last step gave, nothing else comes here; and `device_seconds` for the builder's info: the clock of a
        process that waits for others does not know them.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

    if not rows:
        return [], {}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = ARRIVAL_SECONDS  # a starved stream ends in an error, not in silence
    actors, cpus = job.resources.num_actors, num_cpus()
    if cpus is not None and actors > cpus:
        raise UserError(f"generation.num_actors = {actors}: the cluster has {cpus} CPUs; use at most {cpus}")
    if actors:
        how: dict[str, Any] = {
            "fn": Chain,
            "fn_constructor_args": (job, steps),
            "compute": ActorPoolStrategy(size=actors),
        }
    else:
        # Ray would end a process that has had a GPU after one call, and pay its start again: 0 is for ever.
        how = {"fn": Chain(job, steps), "compute": TaskPoolStrategy(), "max_calls": 0}
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    done = dataset.map_batches(batch_size=1, num_cpus=1, num_gpus=int(job.resources.use_gpu), **how)
    last = list(done.iter_rows())
    return last, {"device_seconds": round(sum(row.pop(SECONDS) for row in last), 3)}


class Chain:
    """Several steps as one."""

    def __init__(self, job: Job[Any], steps: Sequence[type[Step]]) -> None:
        self.steps = [step(job) for step in steps]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch after all steps, and the seconds that they took."""
        start = time.perf_counter()
        rows = reduce(lambda rows, step: step(rows), self.steps, batch)
        return rows | {SECONDS: np.array([time.perf_counter() - start])}
