"""What the loops of a sweep share, computed once before they wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autophagy.config.expand import PlannedLoop
from autophagy.engine.cluster import most_waiting, num_cpus, waiting_room
from autophagy.engine.stage import Stage, Stages
from autophagy.store import StageStore
from autophagy.sweeps.progress import SweepProgress
from autophagy.sweeps.recorder import RECORDER_BYTES

if TYPE_CHECKING:
    import ray


def num_concurrent(left: Sequence[PlannedLoop]) -> int:
    """Loops at once that the cluster carries.

    Stages of one CPU wait for it and block nobody; but training and sampling processes that belong together must all
    fit, or loops that hold half of what they need block each other. Where workers come for what waits, as many loops
    wait as the head has room for; with samplers of their own, as many as the workers of this moment carry.
    """
    import ray

    experiments = [loop.experiment for loop in left]
    if num_cpus() is None and not any(e.generation.num_actors for e in experiments):
        return max(1, most_waiting(beside=RECORDER_BYTES))
    resources = ray.cluster_resources()
    fits = []
    for e in experiments:
        together = max(1, e.training.num_workers, e.generation.num_actors)
        fits.append(int(resources.get("CPU", 1)) // together)
        if e.training.use_gpu or e.generation.use_gpu:
            fits.append(int(resources.get("GPU", 1)) // together)
    return max(1, min(fits))


def compute_shared(firsts: Sequence[Stages], store: StageStore, concurrent: int, progress: SweepProgress) -> None:
    """Compute every generation 0 once, distinct ones side by side, before loops wait for them.

    What fails here fails again, with its cause, in the loops that need it.
    """
    import ray

    waiting = [
        group for group in shared_groups(firsts) if not all(store.is_done(stage.name, stage.key) for stage in group)
    ]
    count, done = len(waiting), 0
    progress.shared(done, count)
    # Like a trial, a group only waits for its stages: it holds no CPU.
    room = waiting_room()
    remote = ray.remote(num_cpus=0, max_retries=3, memory=room.pop("memory"), resources=room)(ensure_all)
    running: list[ray.ObjectRef] = []
    while waiting or running:
        while waiting and len(running) < concurrent:
            running.append(remote.remote(waiting.pop(0), store))
        finished, running = ray.wait(running)
        for reference in finished:
            done += 1
            try:
                ray.get(reference)
            except ray.exceptions.RayError:
                continue
            progress.shared(done, count)


def shared_groups(firsts: Sequence[Stages]) -> list[list[Stage]]:
    """The stages of distinct generations 0. Samples of one model are a group, most first: fewer are a copy of these."""
    groups: dict[str, dict[str, Stage]] = {}
    for stages in sorted(firsts, key=lambda stages: -(stages["generate"].count or 0)):
        model = stages["generate"].inputs["model"].key
        groups.setdefault(model, {}).update({stage.key: stage for stage in stages.values()})
    return [list(group.values()) for group in groups.values()]


def ensure_all(stages: Sequence[Stage], store: StageStore) -> None:
    """Compute stages one after the other."""
    for stage in stages:
        stage.ensure(store)
