"""Quality against cost: which arms nobody beats in both."""

from __future__ import annotations

import pandas as pd

from autophagy.common.errors import UserError
from autophagy.runs.pictures import COLOURS, GREY, direction, png, title
from comparisons.arms import check_metric, higher_is_better, last, mark, spans, summary

MOST_LABELLED = 8  # of more arms only the efficient ones are named
LOG_RANGE = 10  # values that span more are drawn on a logarithmic axis


def pareto_table(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Every arm's quality at the end and what its loops cost.

    Seconds are those of the generations after 0, as each stage took when it was built: what a loop would cost by
    itself, whoever shares its stages. Loops that were stopped early are cheap for that reason: an arm that has any
    is never called efficient.

    Returns:
        Columns `arm`, `value`, `low`, `high` (of the metric, see `arms.summary`), `seconds`, `seeds`, `early`, and
        `efficient`: no other arm is at least as good and as cheap, and better in one.

    Raises:
        UserError: neither end of the metric is the good one.
    """
    better = higher_is_better(check_metric(frame, metric))
    if better is None:
        raise UserError(f"metric = {metric}: neither high nor low values are better; choose one such as fid")
    runs = last(frame).dropna(subset=[metric])["run"]
    later = frame[frame["run"].isin(runs) & (frame["generation"] > 0)]
    seconds = later.groupby(["arm", "run"])["seconds"].sum().groupby("arm").mean()
    table = summary(frame, metric).rename(columns={"mean": "value"}).drop(columns="left_out")
    table["seconds"] = table["arm"].map(seconds).fillna(0.0)
    height = table["value"] if better else -table["value"]
    whole = table["early"] == 0
    efficient = []
    for i in table.index:
        as_good = whole & (height >= height[i]) & (table["seconds"] <= table["seconds"][i])
        beaten = as_good & ((height > height[i]) | (table["seconds"] < table["seconds"][i]))
        efficient.append(bool(whole[i] and not beaten.any()))
    return table.assign(efficient=efficient)[["arm", "value", "low", "high", "seconds", "seeds", "early", "efficient"]]


def draw_pareto(frame: pd.DataFrame, metric: str) -> bytes:
    """A point per arm, those that nobody beats joined and named; PNG."""
    from matplotlib.figure import Figure

    table = pareto_table(frame, metric)
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    front = table[table["efficient"]].sort_values("seconds")
    axes.plot(front["seconds"], front["value"], color=COLOURS[0], linewidth=1, drawstyle="steps-post", zorder=1)
    for row in table.to_dict("records"):
        efficient, point = row["efficient"], (row["seconds"], row["value"])
        colour = COLOURS[0] if efficient else GREY
        axes.plot([point[0]] * 2, [row["low"], row["high"]], color=colour, linewidth=1, alpha=0.5)
        axes.plot(*point, "o", color=colour, markersize=6 if efficient else 4)
        if efficient or len(table) <= MOST_LABELLED:
            name = mark(row["arm"], row["early"])
            ink = "black" if efficient else GREY
            axes.annotate(name, point, xytext=(5, 4), textcoords="offset points", fontsize=9, color=ink)
    if spans(table["value"], LOG_RANGE):
        axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds of a loop after generation 0", fontsize=9)
    axes.set_ylabel(f"{title(metric)} at the last generation", fontsize=9)
    axes.set_title(direction(metric), loc="right", fontsize=8, color=GREY)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    dagger = "; † stopped early" * bool(table["early"].any())
    told = f"point: mean over seeds, bar: their spread; joined: no arm is both better and cheaper{dagger}"
    figure.supxlabel(told, fontsize=8, color=GREY, x=0.99, ha="right")
    return png(figure)
