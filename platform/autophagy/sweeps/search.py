"""Look for the best point of a sweep's axes under a budget of loops: Optuna through Ray Tune."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search.optuna import OptunaSearch

from autophagy.common.errors import UserError, without_secrets
from autophagy.common.seeds import seed_for
from autophagy.config.expand import Choice, Loop, check_equal, choices, loops, make_loop, setting
from autophagy.config.sweep import Range, Sweep
from autophagy.engine.cluster import start_ray, waiting_room
from autophagy.graph import plan_loop
from autophagy.loop import run_loop
from autophagy.metrics import METRICS
from autophagy.runs.folder import is_finished, read_records
from autophagy.runs.frames import read_loops
from autophagy.runs.outcomes import Outcome, write_outcomes
from autophagy.store import StageStore
from autophagy.sweeps.progress import SweepProgress
from autophagy.sweeps.shared import num_concurrent
from autophagy.sweeps.summary import claim, compare, log_what_is_missing
from autophagy.sweeps.sweep import checked, run_loops
from autophagy.sweeps.trials import ERROR, last_line, quiet
from autophagy.tracking.sweep import SweepTracker, child_tags
from autophagy.tracking.uri import make_tracker

Point = dict[str, str]  # axis -> label
DIGITS = 4  # of a number from a range


def run_search(sweep: Sweep, store: StageStore, tracking_uri: str | None, progress: SweepProgress) -> None:
    """Run the controls, then point after point, as many as the budget of loops allows; earlier ones count.

    With several loops at once, what is tried next depends on which ends first.
    """
    assert sweep.search is not None
    if sweep.search.metric not in METRICS:
        raise UserError(f"search.metric = {sweep.search.metric}: no such metric; choose one of {', '.join(METRICS)}")
    controls, plans = checked(loops(sweep), store)
    at_corners = [loop for point in corners(sweep) for loop in loops_at(sweep, point)[:1]]
    check_equal(sweep, [*controls, *at_corners])
    tried = finished_points(sweep, store)
    num_points = sweep.search.num_points(sweep)
    found = Found(sweep, store, [*controls, *(x for point in tried for x in loops_at(sweep, point))])
    left = [x for x in controls if not is_finished(x.experiment, plans[x.run], store)]
    num_left = len(left) + max(0, num_points - len(tried)) * len(sweep.seeds)
    progress.begin(len(controls) + num_points * len(sweep.seeds), num_left, num_left * (sweep.base.generations + 1))
    tracker = SweepTracker(tracking_uri, sweep) if tracking_uri else None
    if tracker:
        tracker.begin(f"at most {sweep.search.num_loops} loops, by {sweep.search.metric}")
    found.save()
    try:
        start_ray()
        if left:
            found.outcomes |= run_loops(sweep, left, plans, store, tracker, progress)
        if len(tried) < num_points:
            search(sweep, tried, num_points - len(tried), found, tracker, progress)
    except BaseException:
        if tracker:
            tracker.interrupt()
        raise
    finally:
        found.save()
        progress.end()
    if tracker:
        log_what_is_missing(tracker, found.loops, found.outcomes, store)
    compare(sweep, found.loops, found.outcomes, store, tracker)


@dataclass
class Found:
    """The loops that were tried so far, and what became of them."""

    sweep: Sweep
    store: StageStore
    loops: list[Loop]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outcomes = {loop.run: outcome_of(loop, self.store) for loop in self.loops}

    def add(self, loop: Loop, outcome: Outcome) -> None:
        """One more."""
        if loop.run not in self.outcomes:
            self.loops.append(loop)
        self.outcomes[loop.run] = outcome
        self.save()

    def save(self) -> None:
        """Write it down, so that the same command goes on from here."""
        claim(self.sweep, self.loops, self.store)
        write_outcomes(self.store, self.sweep.name, self.outcomes)


def search(
    sweep: Sweep,
    tried: Sequence[Point],
    num_points: int,
    found: Found,
    tracker: SweepTracker | None,
    progress: SweepProgress,
) -> None:
    """Try points, told what the earlier ones gave."""
    import optuna

    assert sweep.search is not None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    concurrent = sweep.max_concurrent or num_concurrent(loops_at(sweep, corners(sweep)[0]))
    optimiser = OptunaSearch(
        space(sweep),
        metric="objective",
        mode="max" if METRICS[sweep.search.metric].higher_is_better else "min",
        points_to_evaluate=[sampled(sweep, point) for point in tried] or None,
        evaluated_rewards=[objective(sweep, point, found.store) for point in tried] or None,
        seed=seed_for(sweep.seeds[0], "search", len(tried)) % 2**32,
    )
    tracking = (tracker.tracking_uri, tracker.run_id) if tracker else (None, None)
    trainable = tune.with_parameters(trial, sweep=sweep, store=found.store, tracking=tracking)
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 0} | waiting_room()),
            tune_config=tune.TuneConfig(
                search_alg=optimiser, num_samples=num_points, max_concurrent_trials=concurrent, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=folder,
                callbacks=[Reporter(sweep, found, progress)],
                failure_config=tune.FailureConfig(max_failures=sweep.max_retries),
                verbose=0,
            ),
        ).fit()


def trial(config: Mapping[str, Any], sweep: Sweep, store: StageStore, tracking: tuple[str | None, str | None]) -> None:
    """One point, in a process of Tune's: its loops one after the other, then one report."""
    point = labels_of(sweep, config)
    for loop in loops_at(sweep, point):
        run_loop(loop.experiment, store, make_tracker(tracking[0], sweep.name, child_tags(sweep, tracking[1], loop)))
    tune.report({"objective": objective(sweep, point, store)})


class Reporter(tune.Callback):
    """Writes down what a point has given, or why it gave nothing."""

    def __init__(self, sweep: Sweep, found: Found, progress: SweepProgress) -> None:
        self.sweep, self.found, self.progress = sweep, found, progress

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it, to be restored some day: the store knows better

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The loops of a point are done."""
        for loop in loops_at(self.sweep, labels_of(self.sweep, trial.config)):
            self._tell(loop, outcome_of(loop, self.found.store))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A point has failed for the last time."""
        error = without_secrets(str(trial.get_error()))
        for loop in loops_at(self.sweep, labels_of(self.sweep, trial.config)):
            outcome = outcome_of(loop, self.found.store)
            if not outcome.final:
                self.found.store.write_run_file(loop.run, ERROR, error.encode())
                outcome = Outcome("failed", outcome.generation, last_line(error))
            self._tell(loop, outcome)

    def _tell(self, loop: Loop, outcome: Outcome) -> None:
        self.found.add(loop, outcome)
        self.progress.ended(loop, outcome)


def space(sweep: Sweep) -> dict[str, Any]:
    """The axes as Optuna has them: labels, or numbers of a range."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        name: FloatDistribution(axis.low, axis.high, log=axis.log)
        if isinstance(axis, Range)
        else CategoricalDistribution([label for label, _ in choices(name, axis)])
        for name, axis in sweep.axes.items()
    }


def labels_of(sweep: Sweep, config: Mapping[str, Any]) -> Point:
    """A point that the optimiser names: numbers with few digits, so that their labels are all there is to them."""
    return {
        name: f"{config[name]:.{DIGITS}g}" if isinstance(axis, Range) else str(config[name])
        for name, axis in sweep.axes.items()
    }


def sampled(sweep: Sweep, point: Point) -> dict[str, Any]:
    """A point as the optimiser would have named it."""
    return {name: float(point[name]) if isinstance(axis, Range) else point[name] for name, axis in sweep.axes.items()}


def loops_at(sweep: Sweep, point: Point) -> list[Loop]:
    """The loops at a point: one for each seed."""
    chosen: dict[str, Choice] = {}
    for name, axis in sweep.axes.items():
        label = point[name]
        chosen[name] = (
            setting(name, float(label)) if isinstance(axis, Range) else (label, dict(choices(name, axis))[label])
        )
    return [make_loop(sweep, chosen, seed) for seed in sweep.seeds]


def corners(sweep: Sweep) -> list[Point]:
    """All labels, and both ends of the ranges, in all combinations."""
    ends = [
        [f"{end:.{DIGITS}g}" for end in (axis.low, axis.high)]
        if isinstance(axis, Range)
        else [label for label, _ in choices(name, axis)]
        for name, axis in sweep.axes.items()
    ]
    return [dict(zip(sweep.axes, point, strict=True)) for point in itertools.product(*ends)]


def finished_points(sweep: Sweep, store: StageStore) -> list[Point]:
    """Points of an earlier run of this search whose loops are all done."""
    table = read_loops(store, sweep.name)
    earlier = [planned.labels for planned in table.loops] if table else []
    points = [labels for labels in earlier if labels.keys() == sweep.axes.keys()]
    distinct = [dict(point) for point in dict.fromkeys(tuple(point.items()) for point in points)]
    known = [point for point in distinct if _is_of(sweep, point)]
    return [p for p in known if all(outcome_of(x, store).state == "done" for x in loops_at(sweep, p))]


def _is_of(sweep: Sweep, point: Point) -> bool:
    """Whether the axes still have such a point."""
    return all(
        axis.low <= _number(point[name]) <= axis.high
        if isinstance(axis, Range)
        else point[name] in dict(choices(name, axis))
        for name, axis in sweep.axes.items()
    )


def _number(label: str) -> float:
    """NaN for the label of an axis that was no range then."""
    try:
        return float(label)
    except ValueError:
        return math.nan


def outcome_of(loop: Loop, store: StageStore) -> Outcome:
    """How far a loop has come in this store."""
    records = read_records(loop.run, store)
    if is_finished(loop.experiment, plan_loop(loop.experiment), store):
        return Outcome("done", records[-1].generation, fid=records[-1].metrics["fid"])
    return Outcome("running", records[-1].generation if records else -1)


def objective(sweep: Sweep, point: Point, store: StageStore) -> float:
    """What a finished point is judged by: the metric of the last generation, mean over the seeds."""
    assert sweep.search is not None
    last = [read_records(loop.run, store)[-1] for loop in loops_at(sweep, point)]
    return math.fsum(record.metrics[sweep.search.metric] for record in last) / len(last)
