"""Look for the best point of a sweep's axes under a budget of loops: which point is next, by Optuna."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from ray.tune.search import Searcher

from autophagy.common.errors import UserError
from autophagy.common.seeds import seed_for
from autophagy.config.expand import PlannedLoop, axis_values, check_equal, loops_at
from autophagy.config.sweep import Range, Sweep
from autophagy.graph import plan_loop
from autophagy.metrics import METRICS
from autophagy.runs.folder import read_records
from autophagy.runs.outcomes import Outcome
from autophagy.store.storage import at_once
from autophagy.sweeps.ledger import Ledger
from autophagy.sweeps.points import at, corners, known_points, labels_of, sampled, text_of


def check_search(sweep: Sweep, controls: Sequence[PlannedLoop]) -> None:
    """Raise a UserError if there is no such metric, or if loops would differ in what must be equal."""
    assert sweep.search is not None
    if sweep.search.metric not in METRICS:
        raise UserError(f"search.metric = {sweep.search.metric}: no such metric; choose one of {', '.join(METRICS)}")
    check_equal(sweep, [*controls, *(loops_at(sweep, at(sweep, labels))[0] for labels in corners(sweep))])


class Proposer(Searcher):
    """Names point after point, told what earlier ones gave. Those that an earlier run has begun are named first.

    A point is judged by the metric of the last generation, mean over the seeds. One without this number, since a loop
    of it was stopped, is worse than all that have it, and the worse the fewer generations it came to: what looks good
    before a collapse counts for nothing. (To Optuna it is a pruned trial.)
    """

    def __init__(self, ledger: Ledger) -> None:
        """Enter the loops of earlier points in the ledger.

        `num_over` points are at their end, and the budget leaves `count`.
        """
        super().__init__()
        assert ledger.sweep.search is not None
        self.ledger, self.sweep, self.search = ledger, ledger.sweep, ledger.sweep.search
        known = [loops_at(self.sweep, at(self.sweep, labels)) for labels in known_points(self.sweep, ledger.store)]
        every = [loop for loops in known for loop in loops]
        outcomes = ledger.earlier(every, {loop.run: plan_loop(loop.experiment) for loop in every})
        over = [loops for loops in known if _is_over([outcomes[loop.run] for loop in loops])]
        self.num_over = len(over)
        self.count = max(0, self.search.num_points(self.sweep) - self.num_over)
        begun = [loops for loops in known if loops not in over][: self.count]
        for loops in [*over, *begun]:
            ledger.enter(loops, outcomes)
        self.examples = loops_at(self.sweep, at(self.sweep, corners(self.sweep)[0]))[:1]
        self.space = space(self.sweep)
        self.study = self._study(over, begun)
        self.asked: dict[str, tuple[optuna.Trial, list[PlannedLoop]]] = {}  # by Tune's name of the trial

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as the ledger's

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is known is in the store. Tune wants a file."""
        Path(checkpoint_path).touch()

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next point, as the configuration of a trial; its loops are in the ledger from now on."""
        asked = self.study.ask(self.space)
        point = at(self.sweep, labels_of(self.sweep, asked.params))
        self.asked[trial_id] = asked, loops_at(self.sweep, point)
        self.ledger.enter(self.asked[trial_id][1])
        self.ledger.save()
        return {"point": text_of(point)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Judge a point by what the referee has entered."""
        asked, loops = self.asked.pop(trial_id)
        value, values = self._judged(loops)
        if value is not None:
            self.study.tell(asked, value)
        elif error:
            self.study.tell(asked, state=TrialState.FAIL)
        else:
            for step, seen in enumerate(values, 1):
                asked.report(seen, step)
            self.study.tell(asked, state=TrialState.PRUNED)

    def _study(self, over: Sequence[Sequence[PlannedLoop]], begun: Sequence[Sequence[PlannedLoop]]) -> optuna.Study:
        """Optuna with what is known."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize" if METRICS[self.search.metric].higher_is_better else "minimize",
            sampler=optuna.samplers.TPESampler(seed=seed_for(self.sweep.seeds[0], "search", len(over)) % 2**32),
            pruner=optuna.pruners.NopPruner(),
        )
        self._read([loop for loops in over for loop in loops])
        for loops in over:
            value, values = self._judged(loops)
            study.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
                    value=value,
                    params=sampled(self.sweep, loops[0].labels),
                    distributions=self.space,
                    intermediate_values=dict(enumerate(values, 1)),
                )
            )
        for loops in begun:
            study.enqueue_trial(sampled(self.sweep, loops[0].labels))
        return study

    def _read(self, loops: Sequence[PlannedLoop]) -> None:
        """Enter the curves of loops that are over."""
        for loop, records in zip(loops, at_once(lambda x: read_records(self.ledger.store, x.run), loops), strict=True):
            last = self.ledger.outcomes[loop.run].generation
            self.ledger.curves[loop.run] = {r.generation: r.metrics for r in records if r.generation <= last}

    def _judged(self, loops: Sequence[PlannedLoop]) -> tuple[float | None, list[float]]:
        """What a point is judged by, None if it has no such number; and the metric of all its generations."""
        metric = self.search.metric
        curves = [self.ledger.curves[loop.run] for loop in loops]
        values = [curve[k].get(metric, math.nan) for curve in curves for k in sorted(curve)]
        ends = [c.get(x.experiment.generations, {}).get(metric, math.nan) for c, x in zip(curves, loops, strict=True)]
        mean = math.fsum(ends) / len(ends)
        return (mean if math.isfinite(mean) else None), values


def space(sweep: Sweep) -> dict[str, BaseDistribution]:
    """The axes as Optuna has them: labels, or numbers of a range."""
    return {
        name: FloatDistribution(axis.low, axis.high, log=axis.log)
        if isinstance(axis, Range)
        else CategoricalDistribution([value.label for value in axis_values(name, axis)])
        for name, axis in sweep.axes.items()
    }


def _is_over(outcomes: Sequence[Outcome]) -> bool:
    """Whether the same search would not go on with a point: its loops are done, or one was stopped and all with it."""
    return all(outcome.final for outcome in outcomes)
