"""Run a sweep: all loops of its grid, or a search for the best point of its axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autophagy.frames import sweep_frame
from autophagy.grid import run_grid
from autophagy.store import StageStore
from autophagy.sweep_config import Sweep
from autophagy.sweep_progress import SweepProgress

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
        from autophagy.search import run_search

        run_search(sweep, store, tracking_uri, progress or SweepProgress())
    else:
        run_grid(sweep, store, tracking_uri, progress or SweepProgress())
    return sweep_frame(store, sweep.name)
