"""What a sweep has planned, and what has become of it: sweep.yaml, loops.json and outcomes.json of its run folder."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from autophagy.common.yaml_text import read_yaml
from autophagy.config.expand import PlannedLoop
from autophagy.config.sweep import Sweep
from autophagy.engine.stage import Stages
from autophagy.runs.folder import LOOPS, SWEEP, RunFolder, is_finished, read_records
from autophagy.runs.outcomes import Outcome, read_outcomes, write_outcomes
from autophagy.store import StageStore
from autophagy.store.storage import at_once

Plans = Mapping[str, Sequence[Stages]]  # run -> stages by generation


class Ledger:
    """The loops of a sweep that are planned so far, what they have reported, and what has become of them."""

    def __init__(self, sweep: Sweep, store: StageStore) -> None:
        self.sweep, self.store = sweep, store
        self.loops: dict[str, PlannedLoop] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.curves: dict[str, dict[int, Mapping[str, float]]] = defaultdict(dict)  # run -> generation -> metrics
        saved = RunFolder(store, sweep.name).read_back(SWEEP, lambda data: read_yaml(data, SWEEP))
        rules = saved.get("stopping") if isinstance(saved, dict) else None
        self._same_rules = rules == sweep.stopping.model_dump(mode="json")
        self._before = read_outcomes(store, sweep.name)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles whatever it is handed, to be restored some day: the store knows better

    def earlier(self, planned: Sequence[PlannedLoop], plans: Plans) -> dict[str, Outcome]:
        """What became of loops before: done; or stopped, if the rules are the same; else they go on."""

        def of(loop: PlannedLoop) -> Outcome:
            if is_finished(loop.experiment, plans[loop.run], self.store):
                last = read_records(self.store, loop.run)[loop.experiment.generations]
                return Outcome("done", last.generation, fid=last.metrics["fid"])
            before = self._before.get(loop.run, Outcome())
            return before if self._same_rules and before.state == "stopped" else Outcome("running", before.generation)

        return dict(zip([loop.run for loop in planned], at_once(of, planned), strict=True))

    def enter(self, planned: Sequence[PlannedLoop], outcomes: Mapping[str, Outcome] | None = None) -> None:
        """Enter loops, and what has become of those that ran before."""
        for loop in planned:
            self.loops[loop.run] = loop
            self.outcomes.setdefault(loop.run, (outcomes or {}).get(loop.run, Outcome()))

    def save(self) -> None:
        """Write it down, so that the same command goes on from here."""
        write_outcomes(self.store, self.sweep.name, self.outcomes)  # before the rules, by which they are read
        claim(self.sweep, list(self.loops.values()), self.store)


def claim(sweep: Sweep, planned: Sequence[PlannedLoop], store: StageStore) -> None:
    """Write what the sweep is and which loops it has."""
    folder = RunFolder(store, sweep.name)
    folder.write(SWEEP, yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False).encode())
    table = [{"run": x.run, "arm": x.arm, "labels": dict(x.labels), "seed": x.seed} for x in planned]
    about = {"sweep": sweep.name, "question": sweep.question, "axes": list(sweep.axes), "loops": table}
    folder.write(LOOPS, json.dumps(about, indent=1).encode())
