"""A stage: reads artifacts, writes one artifact, named by the hash of what it depends on; computed once, ever."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, reduce
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from autophagy.cluster import ARRIVAL_SECONDS, in_worker, num_cpus, start_ray
from autophagy.records import UserError, digest
from autophagy.store import Artifact, Attempt, StageStore

T = TypeVar("T")
SECONDS = "seconds"  # column of a stream: what a row has cost
UNDER_WAY_BYTES = 256 << 20  # rows of a stream between two steps


class Step(Protocol):
    """What maps one batch of a stream to another; made from the job in the process that runs it."""

    def __init__(self, job: Job) -> None: ...

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Job:
    """What a builder gets: the stage's own configuration, its finished inputs, and the folder to write to."""

    config: Mapping[str, Any]  # part of the key: whatever changes the numbers
    runtime: Mapping[str, Any]  # not part of the key: where and how to compute
    inputs: Mapping[str, Artifact]
    attempt: Attempt
    store: StageStore
    key: str
    count: int | None = None  # images, where the stage has a count


Builder = Callable[[Job], "dict[str, Any] | None"]  # returns the manifest's info: small facts about the artifact
# Where a builder runs. worker: in a pooled Ray worker process. here: where the loop runs, as it starts Ray work itself.
# free: where the loop runs, unless that is a Ray worker too: the loops of a sweep hold no CPU.
Place = Literal["worker", "here", "free"]
Cost = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True)
class Stage:
    """One node of the loop's graph. Nothing is computed until `ensure`."""

    name: str
    build: Builder
    config: Mapping[str, Any]
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1  # raise when the builder's numbers change
    generation: int | None = None  # for people; None: before the loop
    place: Place = "worker"
    count: int | None = None  # images, for a stage whose smaller results a larger one extends
    work: float | None = None  # how much there is to do, in a unit of the stage's own; None: not known beforehand
    _opened: dict[str, Artifact] = field(default_factory=dict, init=False, repr=False, compare=False)  # by store

    @property
    def spec(self) -> dict[str, Any]:
        """The canonical description that is hashed."""
        return {
            "stage": self.name,
            "version": self.version,
            "config": dict(self.config),
            "inputs": {role: stage.key for role, stage in self.inputs.items()},
        }

    @cached_property
    def key(self) -> str:
        """Name in the store: the digest of the spec, and the count where there is one."""
        base = digest(self.spec)
        return base if self.count is None else f"{base}-{self.count:09d}"

    def ensure(self, store: StageStore, *, wait: Callable[[str], None] | None = None) -> Artifact:
        """The finished artifact: opened if it exists, else built and published.

        It is looked for once: later calls give what the first one found. In an object store a look takes three
        requests, and a loop of many generations reads the earlier ones again and again.
        """
        if store.uri not in self._opened:
            self._opened[store.uri] = self._find_or_build(store, wait)
        return self._opened[store.uri]

    def _find_or_build(self, store: StageStore, wait: Callable[[str], None] | None) -> Artifact:
        def builder(attempt: Attempt) -> None:
            inputs = {role: stage.ensure(store, wait=wait) for role, stage in self.inputs.items()}
            start_ray()
            job = Job(self.config, self.runtime, inputs, attempt, store, self.key, self.count)
            attempt.info["work"] = self.work
            away = self.place == "worker" or (self.place == "free" and in_worker())
            attempt.info.update((run_in_worker if away else timed)(self.build, job))

        return store.build(self.name, self.key, self.spec, builder, wait)

    def expected(self, history: Iterable[Mapping[str, Any]], cost: Cost) -> float | None:
        """What building will cost, scaled from those of the finished stages that are most alike; None: unknown.

        Args:
            history: manifests of finished stages of this kind, as `StageStore.history` gives them.
            cost: reads it from a manifest.
        """
        past = [(cost(m), m["info"].get("work")) for m in history]
        if self.work is None:
            alike = [spent for spent, work in past if work is None]
        else:
            rates = [(abs(math.log(work / self.work)), spent * self.work / work) for spent, work in past if work]
            alike = [spent for distance, spent in rates if distance == min(rates)[0]]
        return statistics.median(alike) if alike else None


def seconds(manifest: Mapping[str, Any]) -> float:
    """Wall seconds that a finished stage took."""
    return float(manifest["seconds"])


def device_seconds(manifest: Mapping[str, Any]) -> float:
    """Seconds of one CPU or GPU that a finished stage took, waiting left out."""
    return float(manifest["info"].get("device_seconds", manifest["seconds"]))


def num_bytes(manifest: Mapping[str, Any]) -> float:
    """Size of a finished stage's payload."""
    return float(sum(file["size"] for file in manifest["files"].values()))


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


def stream(job: Job, rows: list[dict[str, Any]], *steps: type[Step]) -> Iterator[dict[str, Any]]:
    """Rows through one Ray Data stream: each step is made from the job, and maps one batch to another.

    With `num_actors` in the job's runtime, that many processes of their own do the first step and one does each of
    the others: the steps overlap, and back-pressure bounds what is between them. With 0, every CPU takes a row
    through all steps in a pooled worker process: those are there already when the next stream starts.

    Yields:
        What the last step returns; nothing else comes here.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext, ExecutionResources, TaskPoolStrategy

    if not rows:
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = ARRIVAL_SECONDS  # a starved stream ends in an error, not in silence
    # Ray's own limit is a part of its object store: gigabytes of images that wait for a slow scorer.
    context.execution_options.resource_limits = ExecutionResources(object_store_memory=UNDER_WAY_BYTES)
    actors, use_gpu, cpus = job.runtime["num_actors"], job.runtime["use_gpu"], num_cpus()
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
    start, seconds = time.perf_counter(), 0.0
    for row in dataset.iter_rows():
        seconds += row.pop(SECONDS, 0.0)
        yield row
    job.attempt.info["device_seconds"] = seconds or actors * (time.perf_counter() - start)


@dataclass(frozen=True)
class Chain:
    """Several steps as one."""

    steps: tuple[Step, ...]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch after all steps, and the seconds that they took."""
        start = time.perf_counter()
        rows = reduce(lambda rows, step: step(rows), self.steps, batch)
        return rows | {SECONDS: np.array([time.perf_counter() - start])}


_loaded: OrderedDict[str, Any] = OrderedDict()


def once(name: str, make: Callable[[], T]) -> T:
    """What `make` gives, made once in this process; the few last used are kept, since weights are heavy."""
    if name not in _loaded:
        _loaded[name] = make()
        while len(_loaded) > 4:
            _loaded.popitem(last=False)
    _loaded.move_to_end(name)
    return _loaded[name]
