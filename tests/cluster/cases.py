"""Sweeps to run on a cluster, and what they must give there: what they give on this machine alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from services import Driver

from autophagy.config.expand import loops
from autophagy.config.sweep import Sweep
from autophagy.graph import plan_loop
from autophagy.runs.folder import RunFolder
from autophagy.runs.outcomes import read_outcomes
from autophagy.store import StageStore
from autophagy.store.upkeep import ls, verify

Metrics = dict[str, list[dict[str, float]]]  # run -> generation -> metrics


@dataclass(frozen=True)
class Case:
    """A sweep, and the metrics of the undisturbed one."""

    sweep: Sweep
    undisturbed: Metrics

    def recipe(self, folder: Path) -> Path:
        """The sweep as a file."""
        return write(self.sweep, folder)

    def check(self, store: StageStore) -> None:
        """Everything is there, once, and as if nothing had happened."""
        outcomes = read_outcomes(store, self.sweep.name)
        assert {outcome.state for outcome in outcomes.values()} == {"done"}, outcomes
        plans = [plan_loop(loop.experiment) for loop in loops(self.sweep)]
        wanted = {(stage.name, stage.key) for plan in plans for stages in plan for stage in stages.values()}
        assert {(info.stage, info.key) for info in ls(store)} == wanted
        assert not any(problems for _, problems in verify(store))
        assert metrics(store, self.sweep) == self.undisturbed


def write(sweep: Sweep, folder: Path) -> Path:
    """A sweep as a YAML file."""
    path = folder / f"{sweep.name}.yaml"
    path.write_text(yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False))
    return path


def run_alone(sweep: Sweep, folder: Path) -> Case:
    """Run a sweep on this machine, with a store in a folder."""
    driver = Driver(write(sweep, folder), str(folder / "store"), "none", None).start()
    assert driver.wait() == 0, driver.said()
    return Case(sweep, metrics(StageStore(folder / "store"), sweep))


def metrics(store: StageStore, sweep: Sweep) -> Metrics:
    """What the records of all loops say."""
    found = {}
    for loop in loops(sweep):
        lines = (RunFolder(store, loop.run).read("records.jsonl") or b"").splitlines()
        found[loop.run] = [json.loads(line)["metrics"] for line in lines]
    return found


def under_way(store: StageStore, stage: str) -> Callable[[], bool]:
    """Whether such a stage is being built."""
    return lambda: bool(store.storage.entries(store.storage.at("leases", stage)))
