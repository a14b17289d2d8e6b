"""All loops of a sweep: what they share is computed once, then they run as Ray Tune trials and are compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import yaml

from autophagy.cluster import most_waiting, num_cpus, start_ray, waiting_room
from autophagy.comparison import comparison_table
from autophagy.frames import LOOPS, sweep_frame
from autophagy.graph import Generation
from autophagy.loop import CURVES, check_run, checked_plan, claim_stages, is_finished, read_records, run_loop
from autophagy.outcomes import Outcome, read_outcomes, write_outcomes
from autophagy.pictures import collapse_curves
from autophagy.planning import plan_sweep
from autophagy.records import GenerationRecord
from autophagy.run_files import read_back
from autophagy.stages import Stage
from autophagy.storage import at_once
from autophagy.store import StageStore
from autophagy.sweep_config import Loop, Sweep, loops
from autophagy.sweep_progress import SweepProgress
from autophagy.sweep_tracking import SweepTracker, child_tags
from autophagy.tracking import make_tracker
from autophagy.yaml_text import read_yaml

if TYPE_CHECKING:
    import ray

SWEEP, TABLE, FRAME = "sweep.yaml", "table.md", "generations.csv"
PICTURED = 12  # arms that one picture can show

Plans = Mapping[str, Sequence[Generation]]  # run -> stages by generation


def run_grid(sweep: Sweep, store: StageStore, tracking_uri: str | None, progress: SweepProgress) -> None:
    """Run every loop to its end; what failed is said in outcomes.json.

    Raises:
        UserError: before any compute, if a loop cannot run.
    """
    planned, plans = checked(loops(sweep), store)
    outcomes = earlier_outcomes(sweep, planned, plans, store)
    claim(sweep, planned, store)
    tracker = SweepTracker(tracking_uri, sweep) if tracking_uri else None
    if tracker:
        tracker.begin("\n".join(plan_sweep(plans.values(), store)))
    left = [loop for loop in planned if not outcomes[loop.run].final]
    if left and sweep.stopping.asha:
        left = planned  # halving compares with what the others had reported: they report again, from the store
    progress.begin(len(planned), len(left), sum(loop.experiment.generations + 1 for loop in left))
    try:
        if left:
            outcomes |= run_loops(sweep, left, plans, store, tracker, progress)
    except BaseException:
        if tracker:
            tracker.interrupt()
        raise
    finally:
        write_outcomes(store, sweep.name, outcomes)  # an interrupted sweep says how far it came
        progress.end()
    if tracker:
        log_what_is_missing(tracker, planned, outcomes, store)
    compare(sweep, planned, outcomes, store, tracker)


def log_what_is_missing(
    tracker: SweepTracker, planned: Sequence[Loop], outcomes: Mapping[str, Outcome], store: StageStore
) -> None:
    """Give MLflow what it did not take while the loops ran: it may have been away, or too busy to answer in time."""
    missing = tracker.missing([run for run, outcome in outcomes.items() if outcome.state == "done"])
    for loop in planned:
        if loop.run in missing:
            tags = child_tags(tracker.sweep, tracker.run_id, loop)
            run_loop(loop.experiment, store, make_tracker(tracker.tracking_uri, tracker.sweep.name, tags))


def checked(planned: list[Loop], store: StageStore | None) -> tuple[list[Loop], Plans]:
    """Loops and their stages; a UserError if one cannot run here. Writes and computes nothing."""
    plans = {loop.run: checked_plan(loop.experiment) for loop in planned}
    if store:
        at_once(lambda loop: check_run(loop.experiment, store), planned)
    return planned, plans


def claim(sweep: Sweep, planned: Sequence[Loop], store: StageStore) -> None:
    """Write what the sweep is and which loops it has."""
    values = yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False)
    store.write_run_file(sweep.name, SWEEP, values.encode())
    table = [{"run": x.run, "arm": x.arm, "labels": dict(x.labels), "seed": x.seed} for x in planned]
    about = {"sweep": sweep.name, "question": sweep.question, "axes": list(sweep.axes), "loops": table}
    store.write_run_file(sweep.name, LOOPS, json.dumps(about, indent=1).encode())


def earlier_outcomes(sweep: Sweep, planned: Sequence[Loop], plans: Plans, store: StageStore) -> dict[str, Outcome]:
    """What has become of the loops before: done; or stopped, if the rules are the same; else they go on."""
    saved = read_back(store, sweep.name, SWEEP, lambda data: read_yaml(data, SWEEP))
    rules = saved.get("stopping") if isinstance(saved, dict) else None
    same_rules = rules == sweep.stopping.model_dump(mode="json")
    before = read_outcomes(store, sweep.name)

    def of(loop: Loop) -> Outcome:
        if is_finished(loop.experiment, plans[loop.run], store):
            last = read_records(loop.run, store)[loop.experiment.generations]
            return Outcome("done", last.generation, fid=last.metrics["fid"])
        outcome = before.get(loop.run, Outcome())
        return outcome if same_rules and outcome.state == "stopped" else Outcome("running", outcome.generation)

    return dict(zip([loop.run for loop in planned], at_once(of, planned), strict=True))


def run_loops(
    sweep: Sweep,
    left: Sequence[Loop],
    plans: Plans,
    store: StageStore,
    tracker: SweepTracker | None,
    progress: SweepProgress,
) -> dict[str, Outcome]:
    """What loops share first, then the loops."""
    from autophagy.trials import Setting, run_trials

    # Loops claim their own when they begin; what they share is computed before.
    claim_stages(sweep.name, plans.values(), store)
    start_ray()
    concurrent = sweep.max_concurrent or num_concurrent(left)
    warm([plans[loop.run][0] for loop in left], store, concurrent, progress)
    tracking = (tracker.tracking_uri, tracker.run_id) if tracker else (None, None)
    setting = Setting(sweep, {loop.run: loop for loop in left}, store, *tracking)
    return run_trials(setting, concurrent, progress)


def num_concurrent(left: Sequence[Loop]) -> int:
    """Loops at once that the cluster carries.

    Stages of one CPU wait for it and block nobody; but training and sampling processes that belong together must all
    fit, or loops that hold half of what they need block each other. Where workers come for what waits, as many loops
    wait as the head has room for; with samplers of their own, as many as the workers of this moment carry.
    """
    import ray

    experiments = [loop.experiment for loop in left]
    if num_cpus() is None and not any(e.generation.num_actors for e in experiments):
        return max(1, most_waiting())
    resources = ray.cluster_resources()
    fits = []
    for e in experiments:
        together = max(1, e.training.num_workers, e.generation.num_actors)
        fits.append(int(resources.get("CPU", 1)) // together)
        if e.training.use_gpu or e.generation.use_gpu:
            fits.append(int(resources.get("GPU", 1)) // together)
    return max(1, min(fits))


def warm(firsts: Sequence[Generation], store: StageStore, concurrent: int, progress: SweepProgress) -> None:
    """Compute every generation 0 once, distinct ones side by side, before loops wait for them.

    What fails here fails again, with its cause, in the loops that need it.
    """
    import ray

    waiting = [group for group in prefixes(firsts) if not all(store.is_done(stage.name, stage.key) for stage in group)]
    count, done = len(waiting), 0
    progress.shared(done, count)
    # Like a trial, a group only waits for its stages: it holds no CPU.
    room = waiting_room()
    remote = ray.remote(num_cpus=0, max_retries=3, memory=room.pop("memory"), resources=room)(ensure_all)
    running: list[ray.ObjectRef] = []
    while waiting or running:
        while waiting and len(running) < concurrent:
            running.append(remote.remote(waiting.pop(0), store))
        finished, running = ray.wait(running)
        for reference in finished:
            done += 1
            try:
                ray.get(reference)
            except ray.exceptions.RayError:
                continue
            progress.shared(done, count)


def prefixes(firsts: Sequence[Generation]) -> list[list[Stage]]:
    """The stages of distinct generations 0. Samples of one model are a group, most first: fewer are a copy of these."""
    groups: dict[str, dict[str, Stage]] = {}
    for stages in sorted(firsts, key=lambda stages: -(stages["generate"].count or 0)):
        model = stages["generate"].inputs["model"].key
        groups.setdefault(model, {}).update({stage.key: stage for stage in stages.values()})
    return [list(group.values()) for group in groups.values()]


def ensure_all(stages: Sequence[Stage], store: StageStore) -> None:
    """Compute stages one after the other."""
    for stage in stages:
        stage.ensure(store)


def compare(
    sweep: Sweep,
    planned: Sequence[Loop],
    outcomes: Mapping[str, Outcome],
    store: StageStore,
    tracker: SweepTracker | None,
) -> None:
    """Write the files that set the arms against each other, and close the sweep in MLflow."""
    curves: dict[str, list[list[GenerationRecord]]] = {}
    for loop, records in zip(planned, at_once(lambda loop: read_records(loop.run, store), planned), strict=True):
        if records:
            curves.setdefault(loop.arm, []).append(records)
    frame = sweep_frame(store, sweep.name)
    files = {TABLE: comparison_table(curves).encode(), FRAME: frame.to_csv(index=False).encode()}
    if len(curves) <= PICTURED:
        files[CURVES] = collapse_curves(curves)
    for name, content in files.items():
        store.write_run_file(sweep.name, name, content)
    if tracker:
        tracker.end(outcomes, files)
