"""Work in pooled processes of Ray's."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from autophagy.engine.job import Builder, Info, Job

T = TypeVar("T")


def timed(build: Builder, job: Job[Any]) -> Info:
    """What a builder says, and `device_seconds`: those of one CPU or GPU, or of as many as train."""
    start = time.perf_counter()
    info = build(job) or {}
    seconds = (time.perf_counter() - start) * (job.resources.num_workers or 1)
    return {"device_seconds": round(seconds, 3)} | info


def run_in_worker(function: Callable[..., T], *arguments: Any, num_gpus: int = 0) -> T:
    """Call a function in a pooled Ray worker process: images and heavy libraries stay out of the loop's own."""
    import ray

    try:
        return ray.get(_pooled(num_gpus).remote(function, *arguments))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


@cache
def _pooled(num_gpus: int) -> Any:
    """`_call` as a task of Ray's; made once, since Ray exports each one anew and never forgets it."""
    import ray

    # DEFAULT: a Tune trial's placement group must not capture the task. max_calls: Ray would end a process that has had
    # a GPU after one call, and the next would pay its start again.
    return ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=3, max_calls=0, scheduling_strategy="DEFAULT")(_call)


def _call(function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments)
