"""What all figures of a report share. Colours are names of custom properties of the page's style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from autophagy.runs.pictures import direction

NUM_COLOURS = 8  # --arm-0 ... --arm-7 of the style
DASHES = ("solid", "dash", "dot")
RAMP: list[list[Any]] = [[0.0, "#3f86cc"], [0.5, "#a970b3"], [1.0, "#e0602f"]]  # first to last; on white and on black


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


def on_ramp(share: float) -> str:
    """The colour of what lies a share in [0, 1] of the way from the first to the last."""
    return str(sample_colorscale(RAMP, share)[0])


def better(metric: str) -> str:
    """Which end of a metric is the good one, without the arrow of pictures; empty if neither is."""
    return direction(metric)[2:]


def generations_axis(plot: go.Figure, last: float) -> None:
    """Whole generations along the bottom, ten of them or fewer named."""
    step = max(1, int(np.ceil(last / 10)))
    plot.update_xaxes(dtick=step, range=[-0.2, max(1, last) + 0.2])


def as_figure(plot: go.Figure, id: str, heading: str, alt: str, hint: str = "", caption: str = "") -> Figure:
    """A plot in the style of the page, with its words."""
    plot.update_layout(template="none", showlegend=False, margin={"l": 40, "r": 10, "t": 12, "b": 34})
    plot.update_xaxes(title_standoff=4)
    # A closing tag within the JSON would end the element that holds it.
    return Figure(id, heading, alt, plot.to_json().replace("</", "<\\/"), hint, caption)
