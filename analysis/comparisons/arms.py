"""What the analyses share: values of loops and of arms, and which loops count.

An arm is a setting, its loops are its seeds. A loop that a rule stopped early counts with its last value, and its arm
is marked: leaving it out would flatter the arm by its survivors. A loop that failed or still runs says nothing about
its arm; it does not count, and is counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from autophagy.common.errors import UserError, near
from autophagy.config import Experiment
from autophagy.metrics import METRICS, metric_of
from autophagy.runs.frames import KEYS
from autophagy.runs.pictures import band


def check_metric(frame: pd.DataFrame, metric: str) -> str:
    """The metric, as it is.

    Raises:
        UserError: the frame has no such column, or nothing in it.
    """
    if metric not in frame.columns or metric in KEYS:
        guess = near(metric, map(str, frame.columns))
        raise UserError(f"metric = {metric}: not in the frame{guess}; there are: {', '.join(METRICS)}")
    if not frame[metric].notna().any():
        raise UserError(f"metric = {metric}: not measured in any of these loops; choose another")
    return metric


def higher_is_better(metric: str) -> bool | None:
    """Which end of a metric is the good one; None if neither is, or it is not known."""
    return metric_of(metric).higher_is_better


def fields(frame: pd.DataFrame) -> list[str]:
    """Columns that are fields of the experiment and may change its numbers: without names, seed and where it ran."""
    left_out = {"seed", *Experiment.runtime_fields()}
    sections = Experiment.model_fields
    return [c for c in map(str, frame.columns) if c.partition(".")[0] in sections and c not in left_out]


def settings(frame: pd.DataFrame) -> pd.DataFrame:
    """The fields of every arm: index `arm`, a row of its first loop."""
    return frame.groupby("arm")[fields(frame)].first()


def random_arms(frame: pd.DataFrame) -> list[str]:
    """Arms that choose at random and correct nothing: what every idea must beat."""
    random = (frame["selection.strategy"] == "random") & (frame["correction.kind"] == "none")
    return [str(arm) for arm in frame.loc[random, "arm"].unique()]


def counted(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of loops that are done or were stopped on purpose."""
    return frame[frame["state"].isin(["done", "stopped"])]


def last_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The last row of every loop."""
    return frame.sort_values("generation").drop_duplicates(["sweep", "run"], keep="last")


def last(frame: pd.DataFrame) -> pd.DataFrame:
    """The last row of every loop that counts, and `early`: whether a rule stopped it before its end."""
    rows = last_rows(counted(frame))
    return rows.assign(early=rows["generation"] < rows["generations"]).sort_values(["arm", "seed"], ignore_index=True)


def summary(frame: pd.DataFrame, metric: str, by: Sequence[str] = ("arm",)) -> pd.DataFrame:
    """A metric at the end of the loops.

    Returns:
        Columns `by`, `mean`, `low`, `high` (see `autophagy.runs.pictures.band`), `seeds` (loops that count), `early`
        (of these, stopped before their end) and `left_out` (failed or running).
    """
    ends = last(frame).dropna(subset=[check_metric(frame, metric)])
    loops = frame.groupby(list(by))["run"].nunique().to_dict()
    rows = []
    for key, own in ends.groupby(list(by)):
        labels = key if isinstance(key, tuple) else (key,)
        mean, low, high = band(own[metric])
        left_out = loops[key if len(by) > 1 else labels[0]] - len(own)
        counts = {"seeds": len(own), "early": int(own["early"].sum()), "left_out": left_out}
        rows.append(dict(zip(by, labels, strict=True)) | {"mean": mean, "low": low, "high": high} | counts)
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "seeds", "early", "left_out"])


def area(loop: pd.DataFrame, metric: str, until: int) -> float:
    """Mean height of a loop's curve from generation 0 to `until`: its area (trapezoids) over its length."""
    curve = loop[loop["generation"] <= until].sort_values("generation")
    if until == 0:
        return float(curve[metric].iloc[0])
    return float(np.trapezoid(curve[metric], curve["generation"]) / until)


def three_digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):.{max(0, digits)}f}"


def spans(values: pd.Series, times: float) -> bool:
    """Whether values are positive, and the largest is more than so many times the smallest."""
    return bool(values.max() > times * values.min() > 0)


def mark(name: str, early: int) -> str:
    """An arm's name, with a dagger where loops of it were stopped early."""
    return f"{name} †" if early else name
