"""The interactive figures of the quick checks of one loop, as plotly JSON."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from page.plot import Figure, as_figure, generations_axis, on_ramp


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
                "color": "var(--rest)" if real else on_ramp(generation / last),
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
    return as_figure(plot, id, arm, alt, caption=caption)


def confidence_curves(id: str, arm: str, shares: pd.DataFrame) -> Figure:
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
                "color": "var(--ink)" if real else on_ramp(generation / last),
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
    caption = "Dotted: held-out real. Blue to red: the first to the last generation."
    return as_figure(plot, id, arm, alt, caption=caption)


def ole_curves(id: str, arm: str, values: pd.DataFrame, limits: tuple[float, float]) -> Figure:
    """OLE over the generations, a line per timestep: columns `generation` (-1 = real), `timestep`, `ole`."""
    plot, timesteps = go.Figure(), sorted(values["timestep"].unique())
    for i, timestep in enumerate(timesteps):
        own = values[(values["timestep"] == timestep) & (values["generation"] >= 0)]
        colour = on_ramp(i / max(1, len(timesteps) - 1))
        plot.add_scatter(
            x=own["generation"].tolist(),
            y=own["ole"].round(3).tolist(),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            hovertemplate=f"timestep {timestep}: %{{y:.1f}}<extra></extra>",
        )
    generations_axis(plot, values["generation"].max())
    margin = 0.06 * (limits[1] - limits[0])
    plot.update_yaxes(range=[limits[0] - margin, limits[1] + margin])
    told = ", ".join(map(str, timesteps))
    caption = f"Timestep {told}." if len(timesteps) == 1 else f"Blue to red: timesteps {told}."
    alt = f"OLE of the samples of {arm} over the generations at timestep {told}."
    return as_figure(plot, id, arm, alt, caption=caption)
