"""The arms of a sweep side by side: one table in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import yaml

from autophagy.common.records import GenerationRecord
from autophagy.config.expand import Loop
from autophagy.config.sweep import Sweep
from autophagy.loop import run_loop
from autophagy.runs.folder import CURVES, LOOPS, read_records
from autophagy.runs.frames import sweep_frame
from autophagy.runs.outcomes import Outcome
from autophagy.runs.pictures import collapse_curves
from autophagy.store import StageStore
from autophagy.store.storage import at_once
from autophagy.tracking.sweep import SweepTracker, child_tags
from autophagy.tracking.uri import make_tracker

Curves = Mapping[str, Sequence[Sequence[GenerationRecord]]]  # arm -> seed -> generation
COLUMNS = ("fid", "kid", "precision", "recall", "confidence", "entropy", "real_share", "mean_age")
BASELINE = "random"


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


SWEEP, TABLE, FRAME = "sweep.yaml", "table.md", "generations.csv"
PICTURED = 12  # arms that one picture can show


def log_what_is_missing(
    tracker: SweepTracker, planned: Sequence[Loop], outcomes: Mapping[str, Outcome], store: StageStore
) -> None:
    """Give MLflow what it did not take while the loops ran: it may have been away, or too busy to answer in time."""
    missing = tracker.missing([run for run, outcome in outcomes.items() if outcome.state == "done"])
    for loop in planned:
        if loop.run in missing:
            tags = child_tags(tracker.sweep, tracker.run_id, loop)
            run_loop(loop.experiment, store, make_tracker(tracker.tracking_uri, tracker.sweep.name, tags))


def claim(sweep: Sweep, planned: Sequence[Loop], store: StageStore) -> None:
    """Write what the sweep is and which loops it has."""
    values = yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False)
    store.write_run_file(sweep.name, SWEEP, values.encode())
    table = [{"run": x.run, "arm": x.arm, "labels": dict(x.labels), "seed": x.seed} for x in planned]
    about = {"sweep": sweep.name, "question": sweep.question, "axes": list(sweep.axes), "loops": table}
    store.write_run_file(sweep.name, LOOPS, json.dumps(about, indent=1).encode())


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
