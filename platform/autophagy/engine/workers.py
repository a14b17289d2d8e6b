"""Builders in pooled processes of Ray's."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from autophagy.engine.job import Builder, Job


def timed(build: Builder, job: Job) -> dict[str, Any]:
    """What a builder says, and `device_seconds`: those of one CPU or GPU, or of as many as train."""
    start = time.perf_counter()
    info = build(job) or {}
    seconds = (time.perf_counter() - start) * (job.runtime.get("num_workers") or 1)
    return {"device_seconds": round(job.attempt.info.get("device_seconds", seconds), 3)} | info


def run_in_worker(build: Builder, job: Job) -> dict[str, Any]:
    """Run a builder in a pooled Ray worker process, so that images stay out of the loop's own."""
    import ray

    try:
        return ray.get(_pooled(1 if job.runtime.get("use_gpu") else 0).remote(build, job))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


@cache
def _pooled(num_gpus: int) -> Any:
    """`timed` as a task of Ray's; made once, since Ray exports each one anew and never forgets it."""
    import ray

    # DEFAULT: a Tune trial's placement group must not capture the task.
    return ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=3, scheduling_strategy="DEFAULT")(timed)
