"""Metrics over the generations: mean and band over the seeds of every arm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from autophagy.common.errors import UserError
from autophagy.common.records import GenerationRecord
from autophagy.metrics import metric_of
from autophagy.runs.pictures import INTERVAL_SEEDS, MAIN_METRICS, band, collapse_curves
from comparisons.arms import check_metric, counted, last, last_rows, random_arms

ARMS_A_PICTURE = 8


def bands(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The curve of every arm.

    The curve ends where the first of its loops was stopped early: beyond, a mean would be one of survivors. Loops
    that failed or still run do not count.

    Returns:
        Columns `arm`, `generation`, `mean`, `low`, `high`, `band` (what low and high are: the range, or from 5 seeds
        on the 95% interval of the mean) and `seeds`.
    """
    rows = []
    for (arm, generation), own in _shared(counted(frame)).groupby(["arm", "generation"]):
        values = own[check_metric(frame, metric)].dropna()
        mean, low, high = band(values)
        kind = "range" if len(values) < INTERVAL_SEEDS else "95% interval"
        row = {"arm": arm, "generation": generation, "mean": mean, "low": low, "high": high}
        rows.append(row | {"band": kind, "seeds": len(values)})
    return pd.DataFrame(rows, columns=["arm", "generation", "mean", "low", "high", "band", "seeds"])


def ended(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The last points of loops that did not reach their end.

    Returns:
        Columns `arm`, `run`, `seed`, `generation`, `value`, `state`, `why`.
    """
    rows = last_rows(frame)
    rows = rows[rows["generation"] < rows["generations"]]
    rows = rows.assign(value=rows[check_metric(frame, metric)])
    return rows[["arm", "run", "seed", "generation", "value", "state", "why"]].reset_index(drop=True)


def draw_curves(frame: pd.DataFrame, metrics: Sequence[str] = MAIN_METRICS) -> bytes:
    """A panel per metric, a line per arm; crosses where loops were stopped early. PNG.

    Raises:
        UserError: no loop is finished.
    """
    rows = counted(frame)
    if rows.empty:
        raise UserError("sweep: none of its loops is finished; wait for the first, or look at the curves of a run")
    stopped = set(last(frame).query("early")["run"])
    curves: dict[str, list[list[GenerationRecord]]] = {}
    crosses: dict[str, list[list[GenerationRecord]]] = {}
    wanted = [*metrics, *(metric_of(metric).floor for metric in metrics)]
    columns = [column for column in wanted if column in frame.columns]
    for (arm, run), own in rows.groupby(["arm", "run"]):
        ordered = own.sort_values("generation")
        values = ordered[columns].to_dict("records")
        records = [
            GenerationRecord(int(k), {str(key): value for key, value in row.items()}, {}, {})
            for k, row in zip(ordered["generation"], values, strict=True)
        ]
        curves.setdefault(str(arm), []).append(records)
        if run in stopped:
            crosses.setdefault(str(arm), []).append(records)
    random = random_arms(rows)  # first, and so in the same colour in all pictures
    curves = {arm: curves[arm] for arm in [*random, *(arm for arm in curves if arm not in random)]}
    return collapse_curves(curves, metrics=metrics, stopped=crosses)


def by_picture(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Parts of the frame whose arms fit into one picture, by a suffix: a scenario each, random selection in all."""
    if frame["arm"].nunique() <= ARMS_A_PICTURE:
        return {"": frame}
    found: dict[str, pd.DataFrame] = {}
    scenarios = frame["scenario.kind"].unique()
    for scenario in scenarios:
        own = frame[frame["scenario.kind"] == scenario]
        random = random_arms(own)
        others = [arm for arm in own["arm"].unique() if arm not in random]
        step = max(1, ARMS_A_PICTURE - len(random))
        chunks = [others[start : start + step] for start in range(0, len(others), step)] or [[]]
        for number, chunk in enumerate(chunks, 1):
            suffix = f"_{scenario}" * (len(scenarios) > 1) + f"_{number}" * (len(chunks) > 1)
            found[suffix] = own[own["arm"].isin([*random, *chunk])]
    return found


def _shared(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every arm the generations that all of its loops reached."""
    reached = rows.groupby(["arm", "run"])["generation"].max().groupby("arm").min()
    return rows[rows["generation"].to_numpy() <= rows["arm"].map(reached).to_numpy(dtype=np.int64)]
