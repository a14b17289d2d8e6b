"""Metrics over the generations: mean and band over the seeds of every arm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from arms import check_metric, counted, last, last_rows, random_arms

from autophagy.common.errors import UserError
from autophagy.common.records import GenerationRecord
from autophagy.runs.pictures import FEW_SEEDS, MAIN_METRICS, band
from autophagy.runs.pictures import collapse_curves as draw_curves


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
        kind = "range" if len(values) < FEW_SEEDS else "95% interval"
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


def draw(frame: pd.DataFrame, metrics: Sequence[str] = MAIN_METRICS) -> bytes:
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
    wanted = [*metrics, "confidence_real", *(f"real_vs_real_{metric}" for metric in metrics)]
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
    return draw_curves(curves, metrics=metrics, stopped=crosses)


def _shared(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every arm the generations that all of its loops reached."""
    reached = rows.groupby(["arm", "run"])["generation"].max().groupby("arm").min()
    return rows[rows["generation"].to_numpy() <= rows["arm"].map(reached).to_numpy(dtype=np.int64)]
