"""Points of a sweep as Ray Tune trials: retried, stopped, watched. Nothing that Tune writes is needed to go on."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher

from autophagy.common.errors import without_secrets
from autophagy.common.records import GenerationRecord
from autophagy.config.expand import PlannedLoop, Point, loops_at, run_name
from autophagy.config.sweep import Asha, Sweep
from autophagy.engine.cluster import waiting_room
from autophagy.engine.watcher import Watcher
from autophagy.loop import run_loop
from autophagy.runs.folder import RunFolder
from autophagy.runs.outcomes import Outcome, State
from autophagy.store import StageStore
from autophagy.sweeps.ledger import Ledger
from autophagy.sweeps.progress import SweepProgress
from autophagy.sweeps.recorder import ForwardingTracker, Recorder
from autophagy.sweeps.stopping import why_stop
from autophagy.tracking.sweep import loop_tags
from autophagy.tracking.tracker import Tracker

ERROR = "error.txt"  # in the run folder of a loop that failed
BREAKER = 3  # trials that fail alike before any stage succeeds: the others would too


@dataclass(frozen=True)
class Brief:
    """What every trial is given, small and picklable: its own loops it makes of the sweep and its point."""

    sweep: Sweep
    store: StageStore
    recorder: ActorHandle[Recorder] | None  # None: nothing is logged in MLflow

    def tracker(self, loop: PlannedLoop) -> Tracker | None:
        """The tracker of a loop."""
        return self.recorder and ForwardingTracker(self.recorder, loop_tags(self.sweep, loop))


def run_trials(
    brief: Brief,
    referee: Referee,
    concurrent: int,
    points: Sequence[Point] = (),
    searcher: Searcher | None = None,
    count: int = 1,
) -> None:
    """Run loops to their ends, a trial for each point; what becomes of them is entered in the referee's ledger.

    Args:
        brief: What all trials are given.
        referee: Sees every generation. If it breaks the circuit, loops are left as they are.
        concurrent: Trials at once, each with one loop of its point after the other.
        points: All points of a grid; none for a search.
        searcher: Names the points of a search.
        count: How many it is to name.
    """
    sweep = brief.sweep
    # Trials hold no CPU: those that wait for each other's stages must not keep these from running.
    trainable = tune.with_resources(tune.with_parameters(trial, brief=brief), {"cpu": 0} | waiting_room())
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            trainable,
            param_space={"point": tune.grid_search([json.dumps(point) for point in points])} if points else {},
            tune_config=tune.TuneConfig(
                scheduler=halving(sweep.stopping.asha, sweep.base.generations) if sweep.stopping.asha else None,
                search_alg=searcher,
                num_samples=count,
                max_concurrent_trials=concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=folder,
                stop=referee,
                callbacks=[Reporter(referee)],
                failure_config=tune.FailureConfig(max_failures=sweep.max_retries),
                verbose=0,
            ),
        ).fit()


def halving(asha: Asha, generations: int) -> ASHAScheduler:
    """Tune's successive halving, by FID and over generations."""
    return ASHAScheduler(
        time_attr="generation",
        metric="fid",
        mode="min",
        max_t=generations + 1,
        grace_period=asha.grace_period,
        reduction_factor=asha.reduction_factor,
    )


def quiet() -> None:
    """Tune talks to nobody but us: no tables, log files, tracebacks, and no keys in logs; and Ctrl-C is ours."""
    os.environ.update(
        {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1"}
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # It would hand the driver's keys to trials in a runtime environment, which Ray logs; nodes have keys of their own.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update({name for name in os.environ if name.startswith("AWS_")})


def point_of(config: Mapping[str, Any]) -> Point:
    """The point of a trial. It is text in its configuration: in anything nested Tune looks for search spaces."""
    point: Point = json.loads(config["point"])
    return point


def trial(config: Mapping[str, Any], brief: Brief) -> None:
    """The function that Tune runs in a process of its own: the loops of one point, a report for each generation."""
    for loop in loops_at(brief.sweep, point_of(config)):
        report = Report(loop)
        records = run_loop(loop.experiment, brief.store, brief.tracker(loop), report)
        report.tell(records[-1])


class Report(Watcher):
    """How a loop goes as Tune is told it. Tune may end a trial in `tell`: between generations, or after the loop."""

    def __init__(self, loop: PlannedLoop) -> None:
        self.run, self.last = loop.run, loop.experiment.generations
        self.computed = 0

    @contextmanager
    def building(self, what: str, expected: Callable[[], float | None]) -> Iterator[None]:
        """Count a stage that was computed."""
        yield
        self.computed += 1

    def generation(self, record: GenerationRecord) -> None:
        """Tell a generation; the last one is told by the trial, when the pictures of the loop are there too."""
        if record.generation < self.last:
            self.tell(record)

    def tell(self, record: GenerationRecord) -> None:
        """Report the metrics of a generation."""
        finite = {name: value for name, value in record.metrics.items() if math.isfinite(value)}
        tune.report(finite | {"run": self.run, "generation": record.generation, "computed": self.computed})
        self.computed = 0


class Referee(tune.Stopper):
    """Sees what every loop reports; decides when a point should end early, and when all should.

    With one loop of a point, the whole point is stopped: those of its seeds that come after it do not run.
    """

    def __init__(self, ledger: Ledger, progress: SweepProgress) -> None:
        self.ledger, self.progress = ledger, progress
        self.stops: dict[str, str] = {}  # run -> why it was stopped
        self.failing: dict[str, str] = {}  # run -> why, since the last stage that was computed
        self.broken = ""  # why all loops were ended

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as the ledger's

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a point should end after the generation that one of its loops reports."""
        loop, generation = self.ledger.loops[result["run"]], result["generation"]
        curve = self.ledger.curves[loop.run]
        if generation not in curve:
            curve[generation] = {name: value for name, value in result.items() if isinstance(value, int | float)}
            self.progress.generation(loop, generation, curve[generation])
            if generation == loop.experiment.generations:
                self._end(loop.run, "done")
        if result["computed"]:
            self.failing.clear()
        history = [curve[k] for k in sorted(curve) if k <= generation]
        why = why_stop(self.ledger.sweep.stopping, loop.experiment.generations, history)
        if why:
            self.stops[loop.run] = why
        return bool(why)

    def stop_all(self) -> bool:
        """Whether the circuit is broken."""
        return bool(self.broken)

    def left(self, runs: Sequence[str]) -> list[str]:
        """Those of some loops that are not at their ends."""
        return [run for run in runs if self.ledger.loops[run].experiment.generations not in self.ledger.curves[run]]

    def failed(self, left: Sequence[str], why: str, *, again: bool, lost: bool) -> None:
        """A trial has failed, for the last time or not.

        Args:
            left: What is left of its loops; it was at the first of these.
            why: The error.
            again: It is tried again.
            lost: It has failed with its process, perhaps with many others.
        """
        cause = re.sub(r"[0-9a-f]{6,}|\d+|/\S+", "#", why)
        if not lost:
            self.failing[left[0]] = cause
        if again:
            self.progress.retried(self.ledger.loops[left[0]], why)
        else:
            for run in left:
                self._end(run, "failed", why)
        alike = [other for other, known in self.failing.items() if known == cause]
        if len(alike) >= BREAKER:
            self.broken = f"{len(alike)} loops in a row failed alike: {why}"

    def ended(self, left: Sequence[str]) -> None:
        """A trial has ended without an error, by a rule or because all were ended, with these of its loops left."""
        stopped = next((run for run in left if run in self.stops), None)
        for run in left:
            if run in self.stops:
                self._end(run, "stopped", self.stops[run])
            elif stopped:
                self._end(run, "stopped", f"with {stopped} of the same point: {self.stops[stopped]}")
            elif not self.broken:
                self._end(run, "stopped", "successive halving: FID is not among the best at this generation")

    def _end(self, run: str, state: State, why: str = "") -> None:
        curve = self.ledger.curves[run]
        last = max(curve, default=-1)
        outcome = Outcome(state, last, why, curve[last].get("fid") if curve else None)
        self.ledger.outcomes[run] = outcome
        self.progress.ended(self.ledger.loops[run], outcome)


class Reporter(tune.Callback):
    """Tells the referee how trials end; keeps the whole error of a failed one as error.txt in its run folders."""

    def __init__(self, referee: Referee) -> None:
        self.referee, self.ledger = referee, referee.ledger

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """A loop that came further may fail as often again: on spot machines a long one loses many processes."""
        if result.get("computed"):
            trial.max_failures = trial.num_failures + self.ledger.sweep.max_retries

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has ended without an error."""
        self.referee.ended(self._left(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has failed for the last time."""
        self._failed(trial, again=False)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has failed and will be tried again."""
        self._failed(trial, again=True)

    def _failed(self, trial: Trial, again: bool) -> None:
        if not (left := self._left(trial)):  # it was lost after all was done
            return
        text, lost = latest_error(trial)
        for run in left[:1] if again else left:
            RunFolder(self.ledger.store, run).write(ERROR, text.encode())
        self.referee.failed(left, last_line(text), again=again, lost=lost)

    def _left(self, trial: Trial) -> list[str]:
        point = point_of(trial.config)
        return self.referee.left([run_name(self.ledger.sweep.name, point["labels"], seed) for seed in point["seeds"]])


def latest_error(trial: Trial) -> tuple[str, bool]:
    """What a trial has failed with, and whether it is that its process was lost.

    Both are in files of the driver. (`Trial.get_error` reads copies that Tune makes of these now and then.)
    """
    failures = Path(trial.error_file).read_text()
    text = re.split(r"^Failure # .*$", failures, flags=re.MULTILINE)[-1].strip()
    lost = False
    with suppress(Exception):  # an error that cannot be pickled is one of the loop's
        lost = isinstance(cloudpickle.loads(Path(trial.pickled_error_file).read_bytes()), RayActorError)
    return without_secrets(text), lost


def last_line(error: str) -> str:
    """What was raised, from the text of a traceback."""
    return [line.strip() for line in error.splitlines() if line.strip()][-1]
