"""Rows through the steps of one Ray Data stream."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from autophagy.common.errors import UserError
from autophagy.engine.cluster import ARRIVAL_SECONDS, num_cpus
from autophagy.engine.job import Info, Job, Step

SECONDS = "seconds"  # column of a stream: what a row has cost
UNDER_WAY_BYTES = 256 << 20  # rows of a stream between two steps


def stream(job: Job[Any], rows: list[dict[str, Any]], *steps: type[Step]) -> tuple[list[dict[str, Any]], Info]:
    """Rows through one Ray Data stream: each step is made from the job, and maps one batch to another.

    With `num_actors` in the job's resources, that many processes of their own do the first step and one does each of
    the others: the steps overlap, and back-pressure bounds what is between them. With 0, every CPU takes a row
    through all steps in a pooled worker process: those are there already when the next stream starts.

    Returns:
        What the last step gave, nothing else comes here; and `device_seconds` for the builder's info: the clock of a
        process that waits for others does not know them.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext, ExecutionResources, TaskPoolStrategy

    if not rows:
        return [], {}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = ARRIVAL_SECONDS  # a starved stream ends in an error, not in silence
    # Ray's own limit is a part of its object store: gigabytes of images that wait for a slow scorer.
    context.execution_options.resource_limits = ExecutionResources(object_store_memory=UNDER_WAY_BYTES)
    actors, use_gpu, cpus = job.resources.num_actors, job.resources.use_gpu, num_cpus()
    if cpus is not None and actors > cpus:
        raise UserError(f"generation.num_actors = {actors}: the cluster has {cpus} CPUs; use at most {cpus}")
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    if not actors:
        chain = Chain(tuple(step(job) for step in steps))
        dataset = dataset.map_batches(
            chain, compute=TaskPoolStrategy(), batch_size=None, num_cpus=1, num_gpus=int(use_gpu)
        )
    for position, step in enumerate(steps if actors else ()):
        dataset = dataset.map_batches(
            step,
            fn_constructor_args=(job,),
            compute=ActorPoolStrategy(size=1 if position else actors),
            batch_size=None,
            num_cpus=0.1 if position else 0.9,
            num_gpus=0.5 * use_gpu,
        )
    start = time.perf_counter()
    last = list(dataset.iter_rows())
    seconds = sum(row.pop(SECONDS, 0.0) for row in last) or actors * (time.perf_counter() - start)
    return last, {"device_seconds": round(seconds, 3)}


@dataclass(frozen=True)
class Chain:
    """Several steps as one."""

    steps: tuple[Step, ...]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch after all steps, and the seconds that they took."""
        start = time.perf_counter()
        rows = reduce(lambda rows, step: step(rows), self.steps, batch)
        return rows | {SECONDS: np.array([time.perf_counter() - start])}
