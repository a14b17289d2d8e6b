"""Loops as Ray Tune trials: retried, stopped early, watched. Nothing that Tune writes is needed to go on."""

from __future__ import annotations

import logging
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.exceptions import RayActorError
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler

from autophagy.common.errors import without_secrets
from autophagy.common.records import GenerationRecord
from autophagy.config.expand import Loop
from autophagy.config.sweep import Sweep
from autophagy.engine.cluster import waiting_room
from autophagy.engine.watcher import Watcher
from autophagy.loop import run_loop
from autophagy.runs.outcomes import Outcome, State
from autophagy.store import StageStore
from autophagy.sweeps.progress import SweepProgress
from autophagy.sweeps.stopping import why_stop
from autophagy.tracking.sweep import child_tags
from autophagy.tracking.uri import make_tracker

ERROR = "error.txt"  # in the run folder of a loop that failed
BREAKER = 3  # loops that fail alike before any stage succeeds: the others would too


@dataclass(frozen=True)
class Setting:
    """What every trial is given: picklable."""

    sweep: Sweep
    loops: Mapping[str, Loop]
    store: StageStore
    tracking_uri: str | None
    parent_id: str | None  # the sweep's MLflow run


def run_trials(setting: Setting, concurrent: int, progress: SweepProgress) -> dict[str, Outcome]:
    """Run loops, `concurrent` at a time, to their ends.

    Returns:
        What became of each; `running` for those that a broken circuit left.
    """
    sweep = setting.sweep
    referee = Referee(sweep, setting.loops, progress)
    asha = sweep.stopping.asha
    scheduler = None
    if asha:
        scheduler = ASHAScheduler(
            time_attr="generation",
            metric="fid",
            mode="min",
            max_t=sweep.base.generations + 1,
            grace_period=asha.grace_period,
            reduction_factor=asha.reduction_factor,
        )
    # Trials hold no CPU: those that wait for each other's stages must not keep these from running.
    trainable = tune.with_resources(tune.with_parameters(trial, setting=setting), {"cpu": 0} | waiting_room())
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            trainable,
            param_space={"run": tune.grid_search(list(setting.loops))},
            tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=concurrent, reuse_actors=True),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=folder,
                stop=referee,
                callbacks=[Reporter(referee, setting.store)],
                failure_config=tune.FailureConfig(max_failures=sweep.max_retries),
                verbose=0,
            ),
        ).fit()
    return referee.outcomes


def quiet() -> None:
    """Tune talks to nobody but us: no tables, log files, tracebacks, and no keys in logs; and Ctrl-C is ours."""
    os.environ.update(
        {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1"}
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # It would hand the driver's keys to trials in a runtime environment, which Ray logs; nodes have keys of their own.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update({name for name in os.environ if name.startswith("AWS_")})


def trial(config: Mapping[str, Any], setting: Setting) -> None:
    """The function that Tune runs in a process of its own: one loop, a report for each generation."""
    loop = setting.loops[config["run"]]
    tags = child_tags(setting.sweep, setting.parent_id, loop)
    tracker = make_tracker(setting.tracking_uri, setting.sweep.name, tags)
    report = Report(loop.experiment.generations)
    records = run_loop(loop.experiment, setting.store, tracker, report)
    report.tell(records[-1])


class Report(Watcher):
    """How a loop goes as Tune is told it. Tune may end a trial in `tell`: between generations, or after the loop."""

    def __init__(self, last: int) -> None:
        self.last = last  # generation; told by the trial, when the pictures of the loop are there too
        self.computed = 0

    @contextmanager
    def building(self, what: str, expected: Callable[[], float | None]) -> Iterator[None]:
        """Count a stage that was computed."""
        yield
        self.computed += 1

    def generation(self, record: GenerationRecord) -> None:
        """Tell a generation."""
        if record.generation < self.last:
            self.tell(record)

    def tell(self, record: GenerationRecord) -> None:
        """Report the metrics of a generation."""
        finite = {name: value for name, value in record.metrics.items() if math.isfinite(value)}
        tune.report(finite | {"generation": record.generation, "computed": self.computed})
        self.computed = 0


class Referee(tune.Stopper):
    """Keeps what every loop has reported; decides when one should end early, and when all should."""

    def __init__(self, sweep: Sweep, loops: Mapping[str, Loop], progress: SweepProgress) -> None:
        self.sweep, self.loops, self.progress = sweep, loops, progress
        self.history: dict[str, dict[int, Mapping[str, float]]] = {run: {} for run in loops}
        self.outcomes = dict.fromkeys(loops, Outcome())
        self.failing: dict[str, str] = {}  # run -> why, since the last stage that was computed
        self.broken = ""  # why all loops were ended

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it, to be restored some day: the store knows better

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a loop should end after the generation that it reports."""
        run, generation = result["config"]["run"], result["generation"]
        known = self.history[run]
        if generation not in known:
            known[generation] = {name: value for name, value in result.items() if isinstance(value, int | float)}
            self.progress.generation(self.loops[run], generation, known[generation])
        if result["computed"]:
            self.failing.clear()
        generations = self.loops[run].experiment.generations
        why = why_stop(self.sweep.stopping, generations, [known[k] for k in sorted(known) if k <= generation])
        if why:
            self.outcomes[run] = self._outcome(run, "stopped", why)
        return bool(why)

    def stop_all(self) -> bool:
        """Whether the circuit is broken."""
        return bool(self.broken)

    def failed(self, run: str, why: str, *, again: bool, lost: bool) -> None:
        """A trial of a loop has failed, for the last time or not; `lost` with its process, perhaps with many others."""
        cause = re.sub(r"[0-9a-f]{6,}|\d+|/\S+", "#", why)
        if not lost:
            self.failing[run] = cause
        if again:
            self.progress.retried(self.loops[run], why)
        else:
            self._end(run, self._outcome(run, "failed", why))
        alike = [other for other, known in self.failing.items() if known == cause]
        if len(alike) >= BREAKER:
            self.broken = f"{len(alike)} loops in a row failed alike: {why}"

    def ended(self, run: str) -> None:
        """A trial has ended without an error: at its end, by a rule, or because all were ended."""
        outcome = self.outcomes[run]
        if max(self.history[run], default=-1) >= self.loops[run].experiment.generations:
            outcome = self._outcome(run, "done")
        elif outcome.state == "running" and not self.broken:
            outcome = self._outcome(run, "stopped", "successive halving: FID is not among the best at this generation")
        if outcome.final:
            self._end(run, outcome)

    def _outcome(self, run: str, state: State, why: str = "") -> Outcome:
        known = self.history[run]
        last = max(known, default=-1)
        return Outcome(state, last, why, known[last].get("fid") if known else None)

    def _end(self, run: str, outcome: Outcome) -> None:
        self.outcomes[run] = outcome
        self.progress.ended(self.loops[run], outcome)


class Reporter(tune.Callback):
    """Tells the referee how trials end; keeps the whole error of a failed one as error.txt in its run folder."""

    def __init__(self, referee: Referee, store: StageStore) -> None:
        self.referee, self.store = referee, store

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """A loop that came further may fail as often again: on spot machines a long one loses many processes."""
        if result.get("computed"):
            trial.max_failures = trial.num_failures + self.referee.sweep.max_retries

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has ended without an error."""
        self.referee.ended(trial.config["run"])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has failed for the last time."""
        self._failed(trial, again=False)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has failed and will be tried again."""
        self._failed(trial, again=True)

    def _failed(self, trial: Trial, again: bool) -> None:
        error = trial.get_error()
        text, lost = without_secrets(str(error)), isinstance(error, RayActorError)
        self.store.write_run_file(trial.config["run"], ERROR, text.encode())
        self.referee.failed(trial.config["run"], last_line(text), again=again, lost=lost)


def last_line(error: str) -> str:
    """What was raised, from the text of a traceback."""
    return [line.strip() for line in error.splitlines() if line.strip()][-1]
