"""The interactive figures of a report, as plotly JSON. Colours are names of custom properties of the page's style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from autophagy.metrics import METRICS

NUM_COLOURS = 8  # --arm-0 ... --arm-7 of the style
DASHES = ("solid", "dash", "dot")
_ENDS = ("#3f86cc", "#a970b3", "#e0602f")
RAMP = [[i / 2, colour] for i, colour in enumerate(_ENDS)]  # generations, first to last; on white and on black
OUTLYING = 4  # see `outliers`
LOG_RANGE = 20  # an axis whose values span more is logarithmic


@dataclass(frozen=True)
class Figure:
    """One plot of the page."""

    id: str
    title: str
    alt: str  # what is to be seen, in words
    json: str
    hint: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Look:
    """How an arm is drawn in every figure."""

    colour: str
    dash: str = "solid"
    width: float = 2.0

    @property
    def chip(self) -> dict[str, Any]:
        """The line of the legend."""
        dashes = {"solid": "", "dash": "6 4", "dot": "2 3"}[self.dash]
        return {"colour": self.colour, "width": self.width, "dashes": dashes}


def looks(arms: Sequence[str], baselines: Sequence[str], notable: Sequence[str]) -> dict[str, Look]:
    """Baselines in ink and dashed, up to NUM_COLOURS arms in colour; of more, the notable ones, and the rest pale."""
    others = [arm for arm in arms if arm not in baselines]
    coloured = others if len(others) <= NUM_COLOURS else [a for a in others if a in notable][:NUM_COLOURS]
    found = {arm: Look("var(--ink)", DASHES[1 + i % 2], 2.4) for i, arm in enumerate(baselines)}
    found |= {arm: Look(f"var(--arm-{i})") for i, arm in enumerate(coloured)}
    pale = [arm for arm in others if arm not in coloured]
    return found | {arm: Look("var(--rest)", DASHES[i % len(DASHES)], 1.3) for i, arm in enumerate(pale)}


def curve(metric: str, bands: pd.DataFrame, look: dict[str, Look], floor: float, ended: pd.DataFrame) -> Figure:
    """One metric over the generations: the mean of every arm's seeds and a band around it.

    Args:
        metric: A key of METRICS.
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
    known = bands["mean"].dropna()
    if np.isfinite(floor):
        ends = [bands["generation"].min(), bands["generation"].max()]
        plot.add_scatter(
            x=ends,
            y=[floor, floor],
            mode="lines",
            line={"color": "var(--muted)", "width": 1, "dash": "dot"},
            hovertemplate="real images: %{y:.3g}<extra></extra>",
        )
    caption = METRICS[metric].description
    if metric == "fid" and known.min() > 0 and known.max() > LOG_RANGE * known.min():
        plot.update_yaxes(type="log", dtick=1)
    elif far := outliers(bands):
        rest = bands[~bands["arm"].isin(far)]
        low, high = rest["low"].min(), rest["high"].max()
        plot.update_yaxes(range=[low - 0.06 * (high - low), high + 0.06 * (high - low)])
        caption += f". Leaves the panel: {', '.join(far)}"
    _generations_axis(plot, bands["generation"].max())
    name, last = METRICS[metric].description, bands[bands["generation"] == bands["generation"].max()]
    told = ", ".join(f"{row.arm} {row.mean:.3g}" for row in last.head(6).itertuples())
    return _figure(plot, f"curve-{metric}", title(metric), f"{name}. At the end: {told}.", better(metric), caption)


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
    reverse = [[i / 2, colour] for i, colour in enumerate(reversed(_ENDS))]
    text = [["" if np.isnan(v) else f"{v:.3g}" for v in row] for row in values.to_numpy(float)]
    plot = go.Figure(
        go.Heatmap(
            z=values.to_numpy(float).tolist(),
            x=[str(label) for label in values.columns],
            y=[str(label) for label in values.index],
            text=text,
            texttemplate="%{text}",
            colorscale=RAMP if METRICS[metric].higher_is_better is False else reverse,
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
    return _figure(
        plot,
        id,
        heading,
        f"{METRICS[metric].description}. {cells}.",
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
        colour = "var(--ink)" if origin < 0 else sample_colorscale(RAMP, max(0, origin) / last)[0]
        name = "real" if origin < 0 else f"generation {origin}"
        plot.add_bar(
            x=shares.index.tolist(),
            y=shares[origin].fillna(0).tolist(),
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate=f"{name}: %{{y:.0%}}<extra></extra>",
        )
    plot.update_layout(barmode="stack", bargap=0.18)
    plot.update_yaxes(range=[0, 1], tickformat=".0%", dtick=0.25)
    _generations_axis(plot, shares.index.max())
    plot.update_xaxes(range=[shares.index.min() - 0.6, shares.index.max() + 0.6])
    real = shares.get(-1, pd.Series(0.0, shares.index)).fillna(0)
    alt = f"Origins of the training images of {arm}: {real.iloc[-1]:.0%} real at generation {shares.index[-1]}."
    return _figure(plot, id, arm, alt, f"{real.iloc[-1]:.0%} real at the end")


def latent_map(id: str, arm: str, points: pd.DataFrame, explained: float) -> Figure:
    """Latents in two dimensions; the slider of the page chooses the generation, real ones stay.

    Args:
        points: Columns `generation` (-1 = real), `x`, `y`.
    """
    plot, last = go.Figure(), max(1, int(points["generation"].max()))
    for generation in sorted(set(points["generation"].tolist())):
        own, real = points[points["generation"] == generation], generation == -1
        plot.add_scatter(
            x=own["x"].round(2).tolist(),
            y=own["y"].round(2).tolist(),
            mode="markers",
            marker={
                "size": 5,
                "opacity": 0.45 if real else 0.75,
                "color": "var(--rest)" if real else sample_colorscale(RAMP, generation / last)[0],
            },
            meta={"generation": generation},
            hoverinfo="skip",
        )
    real_points = points[points["generation"] == -1]
    for update, column in ((plot.update_xaxes, "x"), (plot.update_yaxes, "y")):
        # The frame of the real ones, so that it is the same for all loops of one seed.
        low, high = real_points[column].min(), real_points[column].max()
        margin = 0.15 * (high - low)
        update(range=[low - margin, high + margin], showticklabels=False, showgrid=False)
    alt = f"Latents of held-out real images in grey and of one generation of {arm} in colour, in two dimensions."
    caption = f"Grey: held-out real. The plane holds {explained:.0%} of the variance of real latents."
    return _figure(plot, id, arm, alt, caption=caption)


def confidences(id: str, arm: str, shares: pd.DataFrame) -> Figure:
    """How sure the probe is, a line per generation: columns `generation` (-1 = real), `confidence`, `share` below."""
    plot, last = go.Figure(), max(1, int(shares["generation"].max()))
    for generation in sorted(set(shares["generation"].tolist())):
        own, real = shares[shares["generation"] == generation], generation == -1
        name = "held-out real" if real else f"generation {generation}"
        plot.add_scatter(
            x=own["confidence"].round(4).tolist(),
            y=own["share"].round(5).tolist(),
            mode="lines",
            line={
                "color": "var(--ink)" if real else sample_colorscale(RAMP, generation / last)[0],
                "dash": "dot" if real else "solid",
                "width": 1.8,
            },
            hovertemplate=f"{name}: %{{y:.1%}} at most %{{x:.2f}}<extra></extra>",
        )
    plot.update_yaxes(tickformat=".0%", range=[0, 1.02], dtick=0.25)
    plot.update_xaxes(range=[0, 1], dtick=0.25, title_text="confidence at most")
    alt = (
        f"Distribution of the probe's confidence in the samples of {arm}, a line for each generation and one for real."
    )
    return _figure(plot, id, arm, alt, caption="Dotted: held-out real. Blue to red: the first to the last generation.")


def ole(id: str, arm: str, values: pd.DataFrame, limits: tuple[float, float]) -> Figure:
    """OLE over the generations, a line per timestep: columns `generation` (-1 = real), `timestep`, `ole`."""
    plot, timesteps = go.Figure(), sorted(values["timestep"].unique())
    for i, timestep in enumerate(timesteps):
        own = values[(values["timestep"] == timestep) & (values["generation"] >= 0)]
        colour = sample_colorscale(RAMP, i / max(1, len(timesteps) - 1))[0]
        plot.add_scatter(
            x=own["generation"].tolist(),
            y=own["ole"].round(3).tolist(),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            hovertemplate=f"timestep {timestep}: %{{y:.1f}}<extra></extra>",
        )
    _generations_axis(plot, values["generation"].max())
    margin = 0.06 * (limits[1] - limits[0])
    plot.update_yaxes(range=[limits[0] - margin, limits[1] + margin])
    told = ", ".join(map(str, timesteps))
    caption = f"Timestep {told}." if len(timesteps) == 1 else f"Blue to red: timesteps {told}."
    alt = f"OLE of the samples of {arm} over the generations at timestep {told}."
    return _figure(plot, id, arm, alt, caption=caption)


def pareto(points: pd.DataFrame, look: dict[str, Look], metric: str) -> Figure:
    """Quality against cost, a point per arm: the table of `pareto.pareto`."""
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
    if points["value"].max() > LOG_RANGE * points["value"].min() > 0:
        plot.update_yaxes(type="log", dtick=1)
    plot.update_xaxes(title_text="seconds of a loop after generation 0", range=[0, 1.25 * points["seconds"].max()])
    best = ", ".join(points.loc[points["efficient"], "arm"])
    alt = f"{title(metric)} of the last generation against seconds. No arm is both cheaper and better than {best}."
    caption = "Named: arms than which none is both cheaper and better."
    return _figure(plot, "pareto", f"{title(metric)} against cost", alt, better(metric), caption)


def title(metric: str) -> str:
    """A metric's name for people."""
    return metric.upper() if len(metric) == 3 else metric.replace("_", " ")


def better(metric: str) -> str:
    """Which end is the good one."""
    ends = {True: "higher is better", False: "lower is better", None: ""}
    return ends[METRICS[metric].higher_is_better]


def _generations_axis(plot: go.Figure, last: float) -> None:
    step = max(1, int(np.ceil(last / 10)))
    plot.update_xaxes(dtick=step, range=[-0.2, max(1, last) + 0.2])


def _figure(plot: go.Figure, id: str, heading: str, alt: str, hint: str = "", caption: str = "") -> Figure:
    plot.update_layout(template="none", showlegend=False, margin={"l": 40, "r": 10, "t": 12, "b": 34})
    plot.update_xaxes(title_standoff=4)
    # A closing tag within the JSON would end the element that holds it.
    return Figure(id, heading, alt, plot.to_json().replace("</", "<\\/"), hint, caption)
