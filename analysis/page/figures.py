"""The interactive figures that compare arms, as plotly JSON."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from autophagy.metrics import metric_of
from autophagy.runs.pictures import title
from comparisons.arms import spans
from page.plot import RAMP, Figure, Look, as_figure, better, generations_axis, on_ramp

OUTLYING = 4  # see `outliers`
PANEL_LOG_RANGE = 20  # a panel whose values span more has a logarithmic axis


def curve(metric: str, bands: pd.DataFrame, look: dict[str, Look], floor: float, ended: pd.DataFrame) -> Figure:
    """One metric over the generations: the mean of every arm's seeds and a band around it.

    Args:
        metric: A key of `autophagy.metrics`.
        bands: Columns `arm`, `generation`, `mean`, `low`, `high`.
        look: How each arm is drawn; pale ones below.
        floor: What real images reach; NaN if it was not measured.
        ended: Columns `arm`, `generation`, `value`, `why`: the last points of loops that did not reach their end.
    """
    plot = go.Figure()
    # Pale curves first, so that the others lie on top; baselines last.
    order = sorted(look, key=lambda arm: (look[arm].width > 2, look[arm].width > 1.5))
    for arm in order:
        own = bands[bands["arm"] == arm]
        if own["mean"].notna().any():
            _add_curve(plot, arm, own, look[arm])
    for row in ended.to_dict("records"):
        plot.add_scatter(
            x=[row["generation"]],
            y=[row["value"]],
            mode="markers",
            marker={"symbol": "x", "size": 8, "color": look[row["arm"]].colour},
            meta={"arm": row["arm"]},
            hovertemplate=f"{row['arm']}: {row['why']}<extra></extra>",
        )
    if np.isfinite(floor):
        ends = [bands["generation"].min(), bands["generation"].max()]
        plot.add_scatter(
            x=ends,
            y=[floor, floor],
            mode="lines",
            line={"color": "var(--muted)", "width": 1, "dash": "dot"},
            hovertemplate="real images: %{y:.3g}<extra></extra>",
        )
    caption = metric_of(metric).description
    if metric == "fid" and spans(bands["mean"], PANEL_LOG_RANGE):
        plot.update_yaxes(type="log", dtick=1)
    elif far := outliers(bands):
        rest = bands[~bands["arm"].isin(far)]
        low, high = rest["low"].min(), rest["high"].max()
        plot.update_yaxes(range=[low - 0.06 * (high - low), high + 0.06 * (high - low)])
        caption += f". Leaves the panel: {', '.join(far)}"
    generations_axis(plot, bands["generation"].max())
    name, last = metric_of(metric).description, bands[bands["generation"] == bands["generation"].max()]
    told = ", ".join(f"{row.arm} {row.mean:.3g}" for row in last.head(6).itertuples())
    return as_figure(plot, f"curve-{metric}", title(metric), f"{name}. At the end: {told}.", better(metric), caption)


def outliers(bands: pd.DataFrame) -> list[str]:
    """The arm, or a tenth of the arms, without which the others would have OUTLYING times the room; often none."""
    ranges = bands.groupby("arm").agg(low=("low", "min"), high=("high", "max")).dropna()
    distance = (ranges - bands["mean"].median()).abs().max(axis=1).sort_values(ascending=False)
    for count in range(1, 1 + max(1, len(ranges) // 10)):
        rest = ranges.drop(index=distance.index[:count])
        if len(rest) > 1 and np.ptp(ranges.to_numpy()) > OUTLYING * np.ptp(rest.to_numpy()):
            return distance.index[:count].tolist()
    return []


def _add_curve(plot: go.Figure, arm: str, own: pd.DataFrame, look: Look) -> None:
    meta = {"arm": arm}
    if (own["high"] > own["low"]).any() and look.width > 1.5:
        plot.add_scatter(
            x=[*own["generation"], *own["generation"][::-1]],
            y=[*own["high"], *own["low"][::-1]],
            mode="lines",
            fill="toself",
            line={"width": 0},
            fillcolor=look.colour.replace(")", "-band)"),
            hoverinfo="skip",
            meta=meta,
        )
    plot.add_scatter(
        x=own["generation"].tolist(),
        y=own["mean"].tolist(),
        name=arm,
        mode="lines+markers",
        line={"color": look.colour, "width": look.width, "dash": look.dash},
        marker={"size": 5 if look.width > 1.5 else 3},
        meta=meta,
        hovertemplate=f"{arm}<br>generation %{{x}}: %{{y:.3g}}<extra></extra>",
    )


def heat_map(id: str, heading: str, values: pd.DataFrame, metric: str) -> Figure:
    """A metric over two axes.

    Args:
        values: Index and columns are the labels of the axes, cells the mean over seeds; NaN where there is none.
    """
    reverse = [[1 - share, colour] for share, colour in reversed(RAMP)]
    text = [["" if np.isnan(v) else f"{v:.3g}" for v in row] for row in values.to_numpy(float)]
    plot = go.Figure(
        go.Heatmap(
            z=values.to_numpy(float).tolist(),
            x=[str(label) for label in values.columns],
            y=[str(label) for label in values.index],
            text=text,
            texttemplate="%{text}",
            colorscale=RAMP if metric_of(metric).higher_is_better is False else reverse,
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate="%{y}, %{x}: %{z:.4g}<extra></extra>",
            textfont={"color": "#ffffff"},
        )
    )
    plot.update_xaxes(title_text=values.columns.name, type="category", showgrid=False)
    plot.update_yaxes(title_text=values.index.name, type="category", showgrid=False, autorange="reversed")
    cells = "; ".join(
        f"{row}, {column}: {values.loc[row, column]:.3g}" for row in values.index for column in values.columns
    )
    return as_figure(
        plot,
        id,
        heading,
        f"{metric_of(metric).description}. {cells}.",
        better(metric),
        "The last generation, mean over seeds; blue is better.",
    )


def origins(id: str, arm: str, shares: pd.DataFrame) -> Figure:
    """Of what generation the training images of an arm are, stacked.

    Args:
        shares: Index is the generation that is trained, columns the origin (-1 = real), cells the mean share in [0, 1].
    """
    plot = go.Figure()
    known = sorted(int(column) for column in shares.columns)
    last = max(1, known[-1])
    for origin in known:
        colour = "var(--ink)" if origin < 0 else on_ramp(origin / last)
        name = "real" if origin < 0 else f"generation {origin}"
        plot.add_bar(
            x=shares.index.tolist(),
            y=shares[origin].fillna(0).tolist(),
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate=f"{name}: %{{y:.0%}}<extra></extra>",
        )
    plot.update_layout(barmode="stack", bargap=0.18)
    plot.update_yaxes(range=[0, 1], tickformat=".0%", dtick=0.25)
    generations_axis(plot, shares.index.max())
    plot.update_xaxes(range=[shares.index.min() - 0.6, shares.index.max() + 0.6])
    real = shares.get(-1, pd.Series(0.0, shares.index)).fillna(0)
    alt = f"Origins of the training images of {arm}: {real.iloc[-1]:.0%} real at generation {shares.index[-1]}."
    return as_figure(plot, id, arm, alt, f"{real.iloc[-1]:.0%} real at the end")


def pareto(points: pd.DataFrame, look: dict[str, Look], metric: str) -> Figure:
    """Quality against cost, a point per arm: of `pareto.pareto_table`."""
    plot = go.Figure()
    for row in points.sort_values("seconds").to_dict("records"):
        arm, efficient = row["arm"], row["efficient"]
        named = efficient or look[arm].width > 2  # or a baseline
        plot.add_scatter(
            x=[row["seconds"]],
            y=[row["value"]],
            mode="markers+text",
            text=[arm if named else ""],
            textposition="bottom right" if efficient else "top right",
            cliponaxis=False,
            marker={"size": 11 if efficient else 8, "color": look[arm].colour},
            meta={"arm": arm},
            hovertemplate=f"{arm}<br>%{{x:.3g}} s, {title(metric)} %{{y:.3g}}<extra></extra>",
        )
    if spans(points["value"], PANEL_LOG_RANGE):
        plot.update_yaxes(type="log", dtick=1)
    plot.update_xaxes(title_text="seconds of a loop after generation 0", range=[0, 1.25 * points["seconds"].max()])
    best = ", ".join(points.loc[points["efficient"], "arm"])
    alt = f"{title(metric)} of the last generation against seconds. No arm is both cheaper and better than {best}."
    caption = "Named: arms than which none is both cheaper and better."
    return as_figure(plot, "pareto", f"{title(metric)} against cost", alt, better(metric), caption)
