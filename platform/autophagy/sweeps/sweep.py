"""Run a sweep: all loops of its grid, or a search for the best point of its axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autophagy.common.yaml_text import read_yaml
from autophagy.config.expand import Loop, loops
from autophagy.config.sweep import Sweep
from autophagy.engine.cluster import start_ray
from autophagy.engine.stage import Stages
from autophagy.planning import plan_sweep
from autophagy.preflight import check_run, checked_plan
from autophagy.runs.folder import claim_stages, is_finished, read_back, read_records
from autophagy.runs.frames import sweep_frame
from autophagy.runs.outcomes import Outcome, read_outcomes, write_outcomes
from autophagy.store import StageStore
from autophagy.store.storage import at_once
from autophagy.sweeps.progress import SweepProgress
from autophagy.sweeps.shared import num_concurrent, warm
from autophagy.sweeps.summary import SWEEP, claim, compare, log_what_is_missing
from autophagy.tracking.sweep import SweepTracker

if TYPE_CHECKING:
    import pandas as pd


def run_sweep(
    sweep: Sweep, store: StageStore, tracking_uri: str | None = None, progress: SweepProgress | None = None
) -> pd.DataFrame:
    """Run the loops of a sweep to their ends; what the store holds already is not computed again.

    Leaves the run folder `runs/<sweep>`: sweep.yaml, loops.json, outcomes.json, table.md, generations.csv and, of few
    arms, collapse_curves.png; and a run folder per loop.

    Args:
        sweep: The same grid gives the same numbers, whatever interrupted it.
        store: Where all nodes of the cluster find it.
        tracking_uri: MLflow, in which the sweep is an experiment; None for none.
        progress: Told how it goes.

    Returns:
        A row per loop and generation, as `autophagy.frames.sweep_frame` gives it; loops that failed as far as they
        came, with their `state` and `why`.

    Raises:
        UserError: before any compute, if a loop cannot run.
    """
    if sweep.search:
        from autophagy.sweeps.search import run_search

        run_search(sweep, store, tracking_uri, progress or SweepProgress())
    else:
        run_grid(sweep, store, tracking_uri, progress or SweepProgress())
    return sweep_frame(store, sweep.name)


Plans = Mapping[str, Sequence[Stages]]  # run -> stages by generation


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


def checked(planned: list[Loop], store: StageStore | None) -> tuple[list[Loop], Plans]:
    """Loops and their stages; a UserError if one cannot run here. Writes and computes nothing."""
    plans = {loop.run: checked_plan(loop.experiment) for loop in planned}
    if store:
        at_once(lambda loop: check_run(loop.experiment, store), planned)
    return planned, plans


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
    from autophagy.sweeps.trials import Setting, run_trials

    # Loops claim their own when they begin; what they share is computed before.
    claim_stages(sweep.name, plans.values(), store)
    start_ray()
    concurrent = sweep.max_concurrent or num_concurrent(left)
    warm([plans[loop.run][0] for loop in left], store, concurrent, progress)
    tracking = (tracker.tracking_uri, tracker.run_id) if tracker else (None, None)
    setting = Setting(sweep, {loop.run: loop for loop in left}, store, *tracking)
    return run_trials(setting, concurrent, progress)
