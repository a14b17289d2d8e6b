"""The Ray cluster that loops run on: joined or started, and where loops wait for what it computes."""

from __future__ import annotations

import os
import sys

from autophagy.common import signals
from autophagy.common.rights import guard_token

LOOP_BYTES = 140 << 20  # what the process of a loop takes, which only waits for stages: 128 MB, and a margin
ARRIVAL_SECONDS = 1800  # for machines to come in a cloud, before work that waits for them fails
IDLE_MS = 60_000  # before a pooled process ends that has nothing to do: starting one costs seconds of a CPU
_HEAD = "node:__internal_head__"  # a resource of the head's alone


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine, quietly; once."""
    import ray

    if not ray.is_initialized():
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(IDLE_MS))  # Ray's own: a second
        os.environ.setdefault("RAY_enable_metrics_collection", "0")  # they would be told to all, without a token
        guard_token()
        ray.init(log_to_driver=False, logging_level="ERROR")
        guard_token()  # which Ray may just have made
        signals.renew()


def in_worker() -> bool:
    """Whether this process is a worker of Ray's, and not the one that a person started."""
    ray = sys.modules.get("ray")  # a worker has it
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE


def num_cpus() -> int | None:
    """CPUs that there are; None where the head computes nothing: workers come when there is work, and go."""
    import ray

    return int(ray.cluster_resources().get("CPU", 0)) if _head().get("CPU") else None


def waiting_room() -> dict[str, float]:
    """Resources of a process that only waits for stages: memory; and the head, where that computes nothing.

    There it keeps no machine from being given back, and is not lost with one.
    """
    return {"memory": LOOP_BYTES} if _head().get("CPU") else {"memory": LOOP_BYTES, _HEAD: 0.0001}


def most_waiting(beside: int) -> int:
    """How many such processes the head has memory for, beside what takes some bytes of it."""
    return (int(_head().get("memory", 0)) - beside) // LOOP_BYTES


def _head() -> dict[str, float]:
    """Resources of the head."""
    import ray

    return next(node["Resources"] for node in ray.nodes() if _HEAD in node["Resources"])
