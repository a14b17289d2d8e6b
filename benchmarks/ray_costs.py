"""What one loop costs Ray, the driver and the machine that its process waits on: measured here, with the real parts.

CPU seconds throughout, so that what else the machine does hardly shows. `standing` are CPU seconds a second.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import many_loops
import numpy as np
from processes import Watch, cpu_by_role

from autophagy.common.records import GenerationRecord
from autophagy.common.section import Section
from autophagy.config.expand import PlannedLoop, loops
from autophagy.config.sweep import Sweep, parse_sweep
from autophagy.engine.job import Job
from autophagy.engine.workers import run_in_worker
from autophagy.graph import plan_loop
from autophagy.store import Attempt, StageStore, leases
from autophagy.sweeps.ledger import Ledger
from autophagy.sweeps.progress import SweepProgress

GENERATIONS = 12  # of the loop that is looked at
SETTLED = 4  # generations after which everything that is loaded once is loaded
WINDOW = 20.0  # seconds that waiting loops are looked at
PATIENCE = 600.0  # seconds for their processes to start
FEW, MANY = 2, 42  # reports of a light trial
SHARED = ("driver", "gcs", "raylet")


def told(what: str) -> None:
    """Say on standard error what is measured now."""
    print(f"measuring: {what}", file=sys.stderr, flush=True)


def copies(count: int, generations: int, seed: int = 0) -> tuple[Sweep, list[PlannedLoop]]:
    """A sweep of loops that differ in nothing but their names: what one has computed all have."""
    axes: dict[str, dict[str, dict[str, Any]]] = {"copy": {str(i): {} for i in range(count)}}
    base = many_loops.BASE | {"generations": generations}
    sweep = parse_sweep({"name": "copies", "base": base, "axes": axes, "seeds": [seed]})
    return sweep, loops(sweep)


def run(sweep: Sweep, made: Sequence[PlannedLoop], store: StageStore, concurrent: int, progress: SweepProgress) -> None:
    """Run the loops of a sweep through Ray Tune, and nothing of what a sweep does before and after."""
    from autophagy.sweeps.referee import Referee
    from autophagy.sweeps.trials import Brief, run_trials

    ledger = Ledger(sweep, store)
    ledger.enter(made)
    run_trials(Brief(sweep, store, None), Referee(ledger, progress), concurrent, [loop.point for loop in made])


def own_cpu() -> dict[str, float]:
    """CPU seconds so far of this process, the driver, and of Ray's processes by their roles."""
    return cpu_by_role(os.getpid())


def slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Least squares: what each x adds, not less than nothing, and what there is at x = 0."""
    added, first = np.polyfit(x, y, 1)
    return max(0.0, float(added)), float(first)


class Samples(SweepProgress):
    """Looks at the CPU seconds of everything at each generation that is reported."""

    def __init__(self) -> None:
        self.taken: list[dict[str, float]] = []

    def generation(self, loop: PlannedLoop, generation: int, metrics: Mapping[str, float]) -> None:
        """Look once."""
        self.taken.append(own_cpu() | {"wall": time.perf_counter()})


def waiting_costs(store: StageStore, counts: Sequence[int]) -> dict[str, float]:
    """Loops that wait for a stage that somebody else builds: their memory, and what they cost meanwhile."""
    rows = [wait(store, count) for count in counts]
    found: dict[str, float] = {}
    for role in SHARED:
        each, always = slope(counts, [row[role] for row in rows])
        found |= {f"{role}_standing": max(0.0, always), f"{role}_standing_per_loop": each}
    last, count = rows[-1], counts[-1]
    return found | {"loop_standing": last["trial"] / count, "loop_start": last["start"] / count, "loop_mb": last["mb"]}


def wait(store: StageStore, count: int) -> dict[str, float]:
    """What so many loops at once cost, by role, while somebody holds the lease of their first stage."""
    sweep, made = copies(count, 0, seed=1000 + count)
    real = plan_loop(made[0].experiment)[0]["real"]
    found: dict[str, float] = {}
    held = threading.Event()

    def look() -> None:
        with leases.hold(store.storage, real.name, real.key, [], lambda: False):
            held.set()
            found.update(standing(count))

    looking = threading.Thread(target=look)
    looking.start()
    held.wait()
    run(sweep, made, store, count, SweepProgress())
    looking.join()
    return found


def standing(count: int) -> dict[str, float]:
    """CPU seconds a second by role, once so many processes of loops have settled; what it took until then; memory."""
    before, limit = -math.inf, time.monotonic() + PATIENCE
    while True:
        time.sleep(4)
        if time.monotonic() > limit:
            raise RuntimeError(f"{count} loops did not come to wait within {PATIENCE:.0f} s")
        watch = Watch(os.getpid(), "driver", shares=True)
        watch.look()
        spent = watch.cpu("trial")
        if watch.count("trial") >= count and spent - before < 0.4 * count:
            break
        before = spent
    first, start = own_cpu(), time.perf_counter()
    time.sleep(WINDOW)
    last, seconds = own_cpu(), time.perf_counter() - start
    mb = [seen.shared_out for seen in watch.seen.values() if seen.role == "trial"]
    rates = {role: (last[role] - first[role]) / seconds for role in (*SHARED, "trial")}
    told(f"{count} loops that wait: {', '.join(f'{role} {1000 * rate:.1f} ms/s' for role, rate in rates.items())}")
    return rates | {"start": spent, "mb": sum(mb) / len(mb)}


def generation_costs(store: StageStore, known: Mapping[str, float]) -> dict[str, float]:
    """One loop through Ray Tune, all of its stages computed: what a generation costs beside computing and waiting."""
    samples = Samples()
    run(*copies(1, GENERATIONS), store, 1, samples)
    first, last = samples.taken[SETTLED], samples.taken[-2]  # the last one comes after the pictures
    count = len(samples.taken) - 2 - SETTLED
    each = {name: (last[name] - first[name]) / count for name in ("wall", "trial", "gcs", "raylet")}
    idle = {role: known[f"{role}_standing"] + known[f"{role}_standing_per_loop"] for role in ("gcs", "raylet")}
    idle["trial"] = known["loop_standing"]
    busy = {role: max(0.0, each[role] - each["wall"] * rate) for role, rate in idle.items()}
    return {
        "loop_generation": busy["trial"],
        "gcs_generation": busy["gcs"],
        "raylet_generation": busy["raylet"],
    }


def trial_costs(
    store: StageStore, counts: Sequence[int], records: Sequence[GenerationRecord], known: Mapping[str, float]
) -> dict[str, float]:
    """The driver's own work for a trial and for a report, with trials that do nothing else, by how many there are."""
    metrics = {name: value for name, value in records[-1].metrics.items() if math.isfinite(value)}
    reports, trials = [], []
    for count in counts:
        idle = known["driver_standing"] + known["driver_standing_per_loop"] * count
        runs = [light_trials(store, count, number, metrics) for number in (FEW, MANY)]
        short, long = (cpu - idle * wall for cpu, wall in runs)
        each = (long - short) / (count * (MANY - FEW))
        reports.append(each)
        trials.append(short - count * FEW * each)
        told(f"{count} light trials at once: {1000 * each:.2f} ms a report, {trials[-1]:.2f} s beside")
    growth, first = slope(counts, reports)
    return {"driver_trial": slope(counts, trials)[0], "driver_report": first, "driver_report_per_loop": growth}


def light_trials(store: StageStore, count: int, reports: int, metrics: Mapping[str, float]) -> tuple[float, float]:
    """CPU and wall seconds of the driver for trials that only report, with the platform's own referee and settings."""
    from ray import tune

    from autophagy.engine.cluster import waiting_room
    from autophagy.sweeps.points import text_of
    from autophagy.sweeps.referee import Referee, Reporter
    from autophagy.sweeps.trials import quiet

    sweep, made = copies(count, reports - 1)
    runs = {text_of(loop.point): loop.run for loop in made}

    def light(config: dict[str, Any]) -> None:
        from ray import tune

        for generation in range(reports):
            tune.report({**metrics, "run": runs[config["point"]], "generation": generation, "computed": 1})

    quiet()
    ledger = Ledger(sweep, store)
    ledger.enter(made)
    referee = Referee(ledger, SweepProgress())
    cpu, wall = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(light, {"cpu": 0} | waiting_room()),
            param_space={"point": tune.grid_search(list(runs))},
            tune_config=tune.TuneConfig(max_concurrent_trials=count, reuse_actors=True),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=folder,
                stop=referee,
                callbacks=[Reporter(referee)],
                failure_config=tune.FailureConfig(max_failures=sweep.max_retries),
                verbose=0,
            ),
        ).fit()
    assert {outcome.state for outcome in ledger.outcomes.values()} == {"done"}
    return time.process_time() - cpu, time.perf_counter() - wall


def task_costs(store: StageStore, count: int = 100) -> dict[str, float]:
    """What Ray needs to run a stage that does nothing in a pooled process."""

    def nothing(job: Job[Section]) -> None: ...

    attempt = Attempt(store.storage.at("tmp", "a"), store.storage.at("tmp", "b"), store.storage)
    job = Job(Section(), {}, attempt, store, "key")
    run_in_worker(nothing, job)
    before, start = own_cpu(), time.perf_counter()
    for _ in range(count):
        run_in_worker(nothing, job)
    after, seconds = own_cpu(), time.perf_counter() - start
    return {
        "gcs_task": (after["gcs"] - before["gcs"]) / count,
        "raylet_task": (after["raylet"] - before["raylet"]) / count,
        "task_seconds": seconds / count,
    }
