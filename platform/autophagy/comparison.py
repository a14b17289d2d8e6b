"""The arms of a sweep side by side: one table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autophagy.records import GenerationRecord

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
