"""Points of a sweep as Ray Tune trials: retried, stopped, watched. Nothing that Tune writes is needed to go on."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.actor import ActorHandle
from ray.tune.execution import class_cache
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher

from autophagy.common.records import GenerationRecord
from autophagy.config.expand import PlannedLoop, Point, loops_at
from autophagy.config.sweep import Asha, Sweep
from autophagy.engine.cluster import waiting_room
from autophagy.engine.watcher import Watcher
from autophagy.loop import run_loop
from autophagy.store import StageStore
from autophagy.sweeps.points import point_of, text_of
from autophagy.sweeps.recorder import ForwardingTracker, Recorder
from autophagy.sweeps.referee import Referee, Reporter
from autophagy.tracking.sweep import loop_tags
from autophagy.tracking.tracker import Tracker


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
            param_space={"point": tune.grid_search([*map(text_of, points)])} if points else {},
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
