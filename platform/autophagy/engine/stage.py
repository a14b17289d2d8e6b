"""A stage: reads artifacts, writes one artifact, named by the hash of what it depends on; computed once, ever."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from autophagy.common.seeds import digest
from autophagy.engine.cluster import in_worker, start_ray
from autophagy.engine.costs import Cost
from autophagy.engine.job import Builder, Job, Place
from autophagy.engine.workers import run_in_worker, timed
from autophagy.store import Artifact, Attempt, StageStore


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


Stages = dict[str, Stage]  # of one generation by name, in the order they run
