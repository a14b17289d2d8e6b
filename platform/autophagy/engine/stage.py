"""A stage: reads artifacts, writes one artifact, named by the hash of what it depends on; computed once, ever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from autophagy.common.section import Section
from autophagy.common.seeds import digest
from autophagy.engine.cluster import in_worker, start_ray
from autophagy.engine.costs import scaled, seconds
from autophagy.engine.job import Builder, Job, Place, Resources
from autophagy.engine.watcher import Watcher
from autophagy.engine.workers import run_in_worker, timed
from autophagy.store import Artifact, Attempt, StageStore


@dataclass(frozen=True)
class Stage:
    """One node of the loop's graph. Nothing is computed until `ensure`."""

    name: str
    build: Builder
    config: Section  # whose keyed part changes the numbers
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    version: int = 1  # raise when the builder's numbers change
    generation: int | None = None  # for people; None: before the loop
    place: Place = "pooled"
    count: int | None = None  # images, for a stage whose smaller results a larger one extends
    work: float | None = None  # how much there is to do, in a unit of the stage's own; None: not known beforehand
    _opened: dict[str, Artifact] = field(default_factory=dict, init=False, repr=False, compare=False)  # by store

    @property
    def spec(self) -> dict[str, Any]:
        """The canonical description that is hashed."""
        return {
            "stage": self.name,
            "version": self.version,
            "config": self.config.keyed(),
            "inputs": {role: stage.key for role, stage in self.inputs.items()},
        }

    @cached_property
    def key(self) -> str:
        """Name in the store: the digest of the spec, and the count where there is one."""
        base = digest(self.spec)
        return base if self.count is None else f"{base}-{self.count:09d}"

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.name.replace("_", " ") + ("" if self.generation is None else f" of generation {self.generation}")

    def ensure(self, store: StageStore, watcher: Watcher | None = None) -> Artifact:
        """The finished artifact: opened if it exists, else built and published.

        It is looked for once: later calls give what the first one found. In an object store a look takes three
        requests, and a loop of many generations reads the earlier ones again and again.
        """
        if store.uri not in self._opened:
            self._opened[store.uri] = self._find_or_build(store, watcher or Watcher())
        return self._opened[store.uri]

    def _find_or_build(self, store: StageStore, watcher: Watcher) -> Artifact:
        def builder(attempt: Attempt) -> None:
            inputs = {role: stage.ensure(store, watcher) for role, stage in self.inputs.items()}
            with watcher.building(self.title, lambda: scaled(store.history(self.name), self.work, seconds)):
                start_ray()
                job = Job(self.config, inputs, attempt, store, self.key, self.count, self.resources)
                if self.place == "pooled" or (self.place == "either" and in_worker()):
                    info = run_in_worker(timed, self.build, job, num_gpus=int(self.resources.use_gpu))
                else:
                    info = timed(self.build, job)
            attempt.info.update({"work": self.work} | info)

        return store.build(self.name, self.key, self.spec, builder, watcher.waits)


Stages = dict[str, Stage]  # of one generation by name, in the order they run
