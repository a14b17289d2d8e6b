"""How long loops last: half-lives and times to a threshold, with the loops that never get there.

A loop that ends before it crosses is censored: all that is known is that its time is longer. The median over the seeds
of an arm is that of the Kaplan-Meier estimate, its interval a percentile bootstrap over seeds.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from comparisons.arms import check_metric, counted, higher_is_better


def crossing(generations: np.ndarray, values: np.ndarray, threshold: float, falling: bool) -> float:
    """First generation at which a curve reaches the threshold, on straight lines between points; inf if never.

    Args:
        generations, values: The points, [n], in order of the generation.
        threshold: What is to be reached.
        falling: From above; else from below.
    """
    height = (values - threshold) * (1 if falling else -1)
    below = np.flatnonzero(height <= 0)
    if not len(below):
        return math.inf
    first = below[0]
    if first == 0:
        return float(generations[0])
    share = height[first - 1] / (height[first - 1] - height[first])
    return float(generations[first - 1] + share * (generations[first] - generations[first - 1]))


def times(frame: pd.DataFrame, metric: str, threshold: float | None = None) -> pd.DataFrame:
    """The time of every loop that is done or was stopped.

    Args:
        frame: One row per loop and generation.
        metric: Its column; where lower is better the loop dies upwards, else downwards.
        threshold: None for the half-life: half of the value at generation 0, or twice where lower is better.

    Returns:
        Columns `arm`, `run`, `seed`, `time` (generations; where censored, the last one that was seen), `censored` and
        `seen` (the last generation). Loops without a positive value to begin with have no half-life, and no row.
    """
    falling = higher_is_better(check_metric(frame, metric)) is not False
    rows = []
    for (arm, run, seed), own in counted(frame).dropna(subset=[metric]).groupby(["arm", "run", "seed"]):
        curve = own.sort_values("generation")
        generations, values = curve["generation"].to_numpy(float), curve[metric].to_numpy(float)
        goal = values[0] * (0.5 if falling else 2) if threshold is None else threshold
        if threshold is None and (generations[0] != 0 or values[0] <= 0):
            continue
        time = crossing(generations, values, goal, falling)
        censored = math.isinf(time)
        row = {"arm": arm, "run": run, "seed": seed, "time": generations[-1] if censored else time}
        rows.append(row | {"censored": censored, "seen": generations[-1]})
    return pd.DataFrame(rows, columns=["arm", "run", "seed", "time", "censored", "seen"])


def median_time(time: np.ndarray, censored: np.ndarray) -> float:
    """Kaplan-Meier median: when half of the loops have crossed; inf if fewer than half are seen to."""
    seen = stats.CensoredData(uncensored=time[~censored], right=time[censored])
    survival = stats.ecdf(seen).sf
    gone = survival.quantiles[survival.probabilities <= 0.5 + 1e-12]
    return float(gone[0]) if len(gone) else math.inf


def lifetimes(
    frame: pd.DataFrame, metric: str, threshold: float | None = None, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """The median time of every arm; arguments as of `times`.

    Returns:
        Columns `arm`, `median`, `low`, `high` (95%; NaN for a single seed; inf: beyond what was seen), `seeds`,
        `censored`, `seen` (the last generation of any of them) and `text`, such as `3.2 [2.1, > 5]`.
    """
    rng, rows = np.random.default_rng(seed), []
    for arm, own in times(frame, metric, threshold).groupby("arm"):
        time, censored = own["time"].to_numpy(float), own["censored"].to_numpy(bool)
        median, low, high = median_time(time, censored), math.nan, math.nan
        if len(own) > 1:
            low, high = _bootstrap(time, censored, rng.integers(len(own), size=(num_resamples, len(own))))
        seen = float(own["seen"].max())
        row = {"arm": arm, "median": median, "low": low, "high": high, "seeds": len(own)}
        text = _told(median, seen) + (f" [{_told(low, seen)}, {_told(high, seen)}]" if len(own) > 1 else "")
        rows.append(row | {"censored": int(censored.sum()), "seen": seen, "text": text})
    return pd.DataFrame(rows, columns=["arm", "median", "low", "high", "seeds", "censored", "seen", "text"])


def _bootstrap(time: np.ndarray, censored: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """2.5% and 97.5% quantile of the medians of resamples, int [num_resamples, n]."""
    distinct, which = np.unique(np.sort(chosen, axis=1), axis=0, return_inverse=True)  # of few seeds there are few
    medians = np.array([median_time(time[rows], censored[rows]) for rows in distinct])[which]
    return np.quantile(medians, [0.025, 0.975], method="inverted_cdf")


def _told(time: float, seen: float) -> str:
    return f"> {seen:g}" if math.isinf(time) else f"{time:.2g}"
