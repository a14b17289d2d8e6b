"""Run a sweep: all loops of its grid, or a search for the best point of its axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autophagy.config.expand import PlannedLoop, loops
from autophagy.config.sweep import Sweep
from autophagy.engine.cluster import start_ray
from autophagy.planning import plan_sweep
from autophagy.preflight import checked_plan
from autophagy.runs.claims import check_run, claim_stages
from autophagy.store import StageStore
from autophagy.store.storage import at_once
from autophagy.sweeps.ledger import Ledger, Plans
from autophagy.sweeps.progress import SweepProgress
from autophagy.sweeps.recorder import recording
from autophagy.sweeps.shared import compute_shared, num_concurrent
from autophagy.tracking.sweep import SweepTracker

if TYPE_CHECKING:
    import pandas as pd

    from autophagy.sweeps.search import Proposer


def run_sweep(
    sweep: Sweep, store: StageStore, tracking_uri: str | None = None, progress: SweepProgress | None = None
) -> pd.DataFrame:
    """Run the loops of a sweep to their ends; what the store holds already is not computed again.

    Of a search these are its controls, then point after point, as many as its budget of loops allows; those of earlier
    runs count. With several points at once, what is tried next depends on which ends first.

    Leaves the run folder `runs/<sweep>`: sweep.yaml, loops.json, outcomes.json, table.md, generations.csv and, of few
    arms, collapse_curves.png; and a run folder per loop.

    Args:
        sweep: The same grid gives the same numbers, whatever interrupted it.
        store: Where all nodes of the cluster find it.
        tracking_uri: MLflow, in which the sweep is an experiment; None for none.
        progress: Told how it goes.

    Returns:
        A row per loop and generation, as `autophagy.runs.frames.sweep_frame` gives it; loops that failed as far as
        they came, with their `state` and `why`.

    Raises:
        UserError: before any compute, if a loop cannot run.
    """
    planned = loops(sweep)
    plans = checked_plans(planned)
    at_once(lambda loop: check_run(loop.experiment, store), planned)
    ledger, progress = Ledger(sweep, store), progress or SweepProgress()
    ledger.enter(planned, ledger.earlier(planned, plans))
    work = work_left(ledger, planned, plans)
    tracker = SweepTracker(tracking_uri, sweep, about(work, store)) if tracking_uri else None
    ledger.save()
    progress.begin(work.num_ended + work.num_left, work.num_left, work.num_generations)
    try:
        if work.num_left:
            compute(work, ledger, tracker, progress)
        elif tracker:
            tracker.begin()
    finally:
        ledger.save()  # an interrupted sweep says how far it came
        progress.end()
    from autophagy.sweeps.summary import compare, log_what_is_missing

    if tracker:
        log_what_is_missing(tracker, ledger)
    return compare(ledger, tracker)


def checked_plans(planned: Sequence[PlannedLoop]) -> Plans:
    """The stages of loops; a UserError if one cannot run here. Writes and computes nothing, and needs no store."""
    return {loop.run: checked_plan(loop.experiment) for loop in planned}


@dataclass(frozen=True)
class Work:
    """What is left to run."""

    sweep: Sweep
    planned: Sequence[PlannedLoop]  # all loops of a grid, or the controls of a search
    plans: Plans  # of these
    left: Sequence[PlannedLoop]  # those that are not at their ends
    proposer: Proposer | None  # of points for a search

    @property
    def num_left(self) -> int:
        """Loops that are not at their ends, those of points that have no name yet included."""
        return len(self.left) + (self.proposer.count * len(self.sweep.seeds) if self.proposer else 0)

    @property
    def num_ended(self) -> int:
        """Loops that are at their ends."""
        over = self.proposer.num_over * len(self.sweep.seeds) if self.proposer else 0
        return len(self.planned) - len(self.left) + over

    @property
    def num_generations(self) -> int:
        """Those of the loops that are left."""
        unnamed = (self.num_left - len(self.left)) * (self.sweep.base.generations + 1)
        return sum(loop.experiment.generations + 1 for loop in self.left) + unnamed


def work_left(ledger: Ledger, planned: Sequence[PlannedLoop], plans: Plans) -> Work:
    """What is left to run; of a search, earlier points are entered in the ledger."""
    sweep = ledger.sweep
    left = [loop for loop in planned if not ledger.outcomes[loop.run].final]
    if left and sweep.stopping.asha:
        left = list(planned)  # halving compares with what the others had reported: they report again, from the store
    if sweep.search is None:
        return Work(sweep, planned, plans, left, None)
    from autophagy.sweeps.search import Proposer, check_search

    check_search(sweep, planned)
    return Work(sweep, planned, plans, left, Proposer(ledger))


def about(work: Work, store: StageStore) -> str:
    """What MLflow is told about a sweep."""
    if search := work.sweep.search:
        return f"at most {search.num_loops} loops, by {search.metric}"
    return "\n".join(plan_sweep(work.plans.values(), store))


def compute(work: Work, ledger: Ledger, tracker: SweepTracker | None, progress: SweepProgress) -> None:
    """What loops share first, then the loops, then the points of a search."""
    from autophagy.sweeps.trials import Brief, Referee, run_trials

    sweep, store, left, proposer = work.sweep, ledger.store, work.left, work.proposer
    start_ray()
    concurrent = sweep.max_concurrent or num_concurrent([*left, *(proposer.examples if proposer else [])])
    with recording(tracker) as recorder:
        brief, referee = Brief(sweep, store, recorder), Referee(ledger, progress)
        if left:
            # Loops claim their own when they begin; what they share is computed before.
            claim_stages(sweep.name, work.plans.values(), store)
            compute_shared([work.plans[loop.run][0] for loop in left], store, concurrent, progress)
            run_trials(brief, referee, concurrent, [loop.point for loop in left])
        if proposer and proposer.count and not referee.broken:
            run_trials(brief, referee, concurrent, searcher=proposer, count=proposer.count)
