"""The arms of a sweep side by side: one table in Markdown."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autophagy.common.records import GenerationRecord
from autophagy.config.expand import PlannedLoop
from autophagy.graph import plan_loop
from autophagy.loop import run_info
from autophagy.runs.folder import CURVES, FRAME, SAMPLES, TABLE, RunFolder, read_records
from autophagy.runs.frames import sweep_frame
from autophagy.runs.outcomes import Outcome
from autophagy.runs.pictures import collapse_curves
from autophagy.store import StageStore
from autophagy.store.storage import at_once
from autophagy.sweeps.ledger import Ledger
from autophagy.tracking.sweep import SweepTracker, loop_tags

if TYPE_CHECKING:
    import pandas as pd

Curves = Mapping[str, Sequence[Sequence[GenerationRecord]]]  # arm -> seed -> generation
COLUMNS = ("fid", "kid", "precision", "recall", "confidence", "entropy", "real_share", "mean_age")
BASELINE = "random"
PICTURED = 12  # arms that one picture can show


def comparison_table(curves: Curves) -> str:
    """Markdown: the last generation of every arm, mean over seeds and [smallest, largest], and ratios of FID.

    Where an arm is named `random`, the FID of the others is set against its own, seed by seed.
    """
    baseline = curves.get(BASELINE)
    against = [f"FID / {BASELINE}'s"] if baseline else []
    # The fixed real set tells seeds apart.
    other = {run[0].stages["real"]: run[-1].metrics["fid"] for run in baseline or ()}
    rows = [["arm", "last / first FID", *against, *COLUMNS, "seconds"]]
    for arm, seeds in curves.items():
        collapse = [run[-1].metrics["fid"] / run[0].metrics["fid"] for run in seeds]
        ratios = [run[-1].metrics["fid"] / other.get(run[0].stages["real"], np.nan) for run in seeds]
        values = [[run[-1].metrics[column] for run in seeds] for column in COLUMNS]
        # What the loop itself costs: generation 0 is the same for all.
        seconds = [sum(sum(record.seconds.values()) for record in run[1:]) for run in seeds]
        rows.append([arm, *map(spread, [collapse, *([ratios] if baseline else []), *values, seconds])])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]) + "\n"


def spread(values: Sequence[float]) -> str:
    """Mean of the seeds, and their range where there are several."""
    if not values or np.isnan(values).any():
        return "-"
    mean = f"{np.mean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} [{min(values):.3g}, {max(values):.3g}]"


def log_what_is_missing(tracker: SweepTracker, ledger: Ledger) -> None:
    """Give MLflow what it did not take while the loops ran: it may have been away, or too busy to answer in time."""
    for run in tracker.missing(ledger.outcomes):
        log_again(tracker, ledger.loops[run], ledger.outcomes[run], ledger.store)


def log_again(tracker: SweepTracker, loop: PlannedLoop, outcome: Outcome, store: StageStore) -> None:
    """Log a loop that is at its end from its run folder."""
    real = plan_loop(loop.experiment)[0]["real"].ensure(store)
    own, done = tracker.of_loop(loop_tags(tracker.sweep, loop)), outcome.state == "done"
    own.start(run_info(loop.experiment, real))
    with tempfile.TemporaryDirectory() as folder:
        pictures = [Path(folder, name) for name in (CURVES, SAMPLES) if done]
        for path in pictures:
            path.write_bytes(RunFolder(store, loop.run).read(path.name) or b"")
        own.finish(read_records(store, loop.run)[: outcome.generation + 1], pictures, complete=done)


def compare(ledger: Ledger, tracker: SweepTracker | None) -> pd.DataFrame:
    """Write the files that set the arms against each other, and close the sweep in MLflow; the frame of its loops."""
    sweep, store, planned = ledger.sweep, ledger.store, list(ledger.loops.values())
    curves: dict[str, list[list[GenerationRecord]]] = {}
    for loop, records in zip(planned, at_once(lambda loop: read_records(store, loop.run), planned), strict=True):
        if records:
            curves.setdefault(loop.arm, []).append(records)
    frame = sweep_frame(store, sweep.name)
    files = {TABLE: comparison_table(curves).encode(), FRAME: frame.to_csv(index=False).encode()}
    if len(curves) <= PICTURED:
        files[CURVES] = collapse_curves(curves)
    for name, content in files.items():
        RunFolder(store, sweep.name).write(name, content)
    if tracker:
        tracker.end(ledger.outcomes, files)
    return frame
