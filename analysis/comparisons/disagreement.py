"""Do the metrics agree which arm is best? Rank correlation of the arms between metrics."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from autophagy.common.errors import UserError
from autophagy.runs.pictures import GREY, MAIN_METRICS, png, title
from comparisons.arms import check_metric, higher_is_better, summary


def scores(frame: pd.DataFrame, metrics: Sequence[str] = MAIN_METRICS) -> pd.DataFrame:
    """Index `arm`, a column per metric: its mean at the end of the loops, its sign turned where lower is better.

    Arms that miss one of the metrics are left out.

    Raises:
        UserError: neither end of a metric is the good one, or fewer than two arms have all of them.
    """
    columns = {}
    for metric in metrics:
        better = higher_is_better(check_metric(frame, metric))
        if better is None:
            raise UserError(f"metric = {metric}: neither high nor low values are better; leave it out")
        values = summary(frame, metric).set_index("arm")["mean"]
        columns[metric] = values if better else -values
    table = pd.DataFrame(columns).dropna()
    if len(table) < 2:
        raise UserError(f"metrics = {', '.join(metrics)}: {len(table)} arms have all of them; two are needed to rank")
    return table


def kendall(frame: pd.DataFrame, metrics: Sequence[str] = MAIN_METRICS) -> pd.DataFrame:
    """Kendall's tau-b between metrics over the arms, in [-1, 1]: 1 is the same order, -1 the reverse."""
    table = scores(frame, metrics)
    taus = [[stats.kendalltau(table[a], table[b]).statistic for b in table] for a in table]
    return pd.DataFrame(taus, index=table.columns, columns=table.columns, dtype=float)


def disagreements(frame: pd.DataFrame, metrics: Sequence[str] = MAIN_METRICS) -> pd.DataFrame:
    """Pairs of metrics whose best arms differ: `metric`, `other`, `tau`, `best`, `other_best`; least agreeing first."""
    table, taus = scores(frame, metrics), kendall(frame, metrics)
    rows = []
    for a, b in combinations(metrics, 2):
        best, other = table[a].idxmax(), table[b].idxmax()
        if best != other:
            rows.append({"metric": a, "other": b, "tau": taus.loc[a, b], "best": best, "other_best": other})
    found = pd.DataFrame(rows, columns=["metric", "other", "tau", "best", "other_best"])
    return found.sort_values("tau", ignore_index=True)


def draw_agreement(frame: pd.DataFrame, metrics: Sequence[str] = MAIN_METRICS) -> bytes:
    """The rank correlations as a heat map, with the best arm by each metric; PNG."""
    from matplotlib.figure import Figure

    table, taus = scores(frame, metrics), kendall(frame, metrics).to_numpy()
    below = np.tri(len(metrics), k=-1, dtype=bool)
    figure = Figure(figsize=(2.6 + 0.62 * len(metrics), 1.5 + 0.46 * len(metrics)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(np.where(below, taus, np.nan), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for i, j in zip(*np.nonzero(below), strict=True):
        tau = taus[i, j]
        ink = "white" if abs(tau) > 0.65 else "black"
        axes.text(j, i, f"{tau:.2f}", ha="center", va="center", fontsize=9, color=ink)
    names = [title(metric) for metric in metrics]
    best = [f"{name}\nbest: {table[metric].idxmax()}" for name, metric in zip(names, metrics, strict=True)]
    axes.set_xticks(range(len(metrics)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(metrics)), best)
    axes.set_xlim(-0.5, len(metrics) - 1.5)
    axes.set_ylim(len(metrics) - 0.5, -0.5)
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    figure.suptitle("Order of the arms by two metrics: Kendall's tau", fontsize=10, x=0.01, ha="left", weight="bold")
    told = f"{len(table)} arms; 1: the same order, -1: the reverse"
    figure.supxlabel(told, fontsize=8, color=GREY, x=0.99, ha="right")
    return png(figure)
