"""A metric at the end of the loops over two axes of a sweep, such as strategy and keep ratio, for each scenario."""

from __future__ import annotations

import numpy as np
import pandas as pd

from autophagy.common.errors import UserError
from autophagy.runs.pictures import GREY, direction, png, title
from comparisons.arms import higher_is_better, summary, three_digits

ROWS, COLUMNS, SCENARIO = "selection.strategy", "keep_ratio", "scenario.kind"


def cells(
    frame: pd.DataFrame, metric: str, rows: str = ROWS, columns: str = COLUMNS, by: str = SCENARIO
) -> pd.DataFrame:
    """A row for each cell: `by`, `rows`, `columns`, and what `arms.summary` gives.

    Args:
        frame: One row per loop and generation.
        metric: Its column.
        rows, columns, by: Axes: fields of the experiment or named axes of the sweep.

    Raises:
        UserError: there is no such axis, or loops of several arms fall into one cell.
    """
    for axis in (rows, columns, by):
        if axis not in frame.columns:
            raise UserError(f"axis = {axis}: no loop of the sweep has it; see `axes` in its loops.json")
    known = frame.dropna(subset=[rows, columns, by])
    arms = known.groupby([by, rows, columns])["arm"].unique()
    for cell, own in arms.items():
        if len(own) > 1:
            raise UserError(
                f"axes = {rows}, {columns}, {by}: arms {own[0]!r} and {own[1]!r} fall into one cell {cell}; "
                "choose the axes in which they differ, or look at a part of the frame"
            )
    return summary(known, metric, by=(by, rows, columns))


def pivot(table: pd.DataFrame, rows: str = ROWS, columns: str = COLUMNS, value: str = "mean") -> pd.DataFrame:
    """A column of some cells as a matrix, NaN where there is none."""
    return table.pivot(index=rows, columns=columns, values=value)


def draw_cells(frame: pd.DataFrame, metric: str, rows: str = ROWS, columns: str = COLUMNS, by: str = SCENARIO) -> bytes:
    """A panel for each value of `by`; light is good. A dagger marks cells with loops that were stopped early. PNG."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    table = cells(frame, metric, rows, columns, by)
    panels = list(table.groupby(by))
    shape = (table[rows].nunique(), table[columns].nunique())
    size = (1.9 + len(panels) * max(2.6, 0.95 * shape[1]), 1.2 + max(1.4, 0.38 * shape[0]))
    figure = Figure(figsize=size, layout="constrained")
    colours = colormaps["viridis" if higher_is_better(metric) is not False else "viridis_r"]
    scale = Normalize(table["mean"].min(), table["mean"].max())
    for position, (name, own) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), position + 1)
        values, early = pivot(own, rows, columns), pivot(own, rows, columns, "early")
        axes.imshow(values.to_numpy(float), cmap=colours, norm=scale, aspect="auto")
        for (i, j), value in np.ndenumerate(values.to_numpy(float)):
            if np.isfinite(value):
                dark = np.dot(colours(scale(value))[:3], (0.3, 0.59, 0.11)) < 0.5  # luma
                dagger = "†" if early.iat[i, j] else ""
                ink = "white" if dark else "black"
                axes.text(j, i, three_digits(value) + dagger, ha="center", va="center", fontsize=9, color=ink)
        axes.set_xticks(range(values.shape[1]), [str(label) for label in values.columns])
        axes.set_yticks(range(values.shape[0]), [str(label) for label in values.index] if position == 0 else [])
        axes.tick_params(length=0, labelsize=9)
        axes.spines[:].set_visible(False)
        axes.set_title(str(name), fontsize=10, loc="left")
        axes.set_xlabel(columns, fontsize=9)
    last = "at the last generation, mean over seeds" + ("; † stopped early" if table["early"].any() else "")
    figure.suptitle(f"{title(metric)} {last}", fontsize=10, x=0.01, ha="left", fontweight="bold")
    figure.supxlabel(direction(metric), fontsize=8, color=GREY, x=0.99, ha="right")
    return png(figure)
