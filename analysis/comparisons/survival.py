"""Where training sets come from: the share of real images and of each generation's samples, by generation."""

from __future__ import annotations

import pandas as pd

from autophagy.common.errors import UserError
from autophagy.common.samples import REAL
from autophagy.runs.pictures import GREY, png
from comparisons.curves import bands


def shares(frame: pd.DataFrame) -> pd.DataFrame:
    """The share of each origin in the training sets of an arm.

    Returns:
        Columns `arm`, `generation`, `origin` (of the images; -1 = real), and `mean`, `low`, `high`, `band`, `seeds` of
        the share in [0, 1], as in `curves.bands`; only origins that there can be: older than the generation.

    Raises:
        UserError: the loops did not record it.
    """
    columns = [c for c in map(str, frame.columns) if c == "share_real" or c.removeprefix("share_").isdigit()]
    if "share_real" not in columns:
        raise UserError("metric = share_real: not recorded in any of these loops; run them again")
    tables = []
    for column in columns:
        origin = REAL if column == "share_real" else int(column.removeprefix("share_"))
        tables.append(bands(frame[frame["generation"] > origin], column).assign(origin=origin))
    table = pd.concat(tables)[["arm", "generation", "origin", "mean", "low", "high", "band", "seeds"]]
    return table.sort_values(["arm", "generation", "origin"], ignore_index=True)


def draw_shares(frame: pd.DataFrame) -> bytes:
    """A panel per arm: stacked shares by generation, real images at the bottom; PNG."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    table = shares(frame)
    arms = list(table["arm"].unique())
    columns = min(4, len(arms))
    lines = -(-len(arms) // columns)
    figure = Figure(figsize=(0.6 + 2.3 * columns, 0.8 + 1.7 * lines), layout="constrained")
    newest = max(1, int(table["origin"].max()))
    for i, arm in enumerate(arms):
        axes = figure.add_subplot(lines, columns, i + 1)
        stacked = table[table["arm"] == arm].pivot(index="generation", columns="origin", values="mean").fillna(0)
        bottom = 0 * stacked.index.to_numpy(float)
        for origin, share in stacked.items():
            real = origin == REAL
            colour = "#333333" if real else colormaps["viridis"](0.15 + 0.8 * int(str(origin)) / newest)
            label = "real images" if real else f"generation {origin}"
            axes.bar(stacked.index, share, bottom=bottom, color=colour, width=0.85, label=label)
            bottom = bottom + share.to_numpy(float)
        axes.set_title(str(arm), loc="left", fontsize=9)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if i % columns:
            axes.set_yticklabels([])
        if i + columns >= len(arms):
            axes.set_xlabel("generation trained", fontsize=8)
    labelled = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(labelled.values(), labelled, loc="outside upper left", ncols=columns * 2, frameon=False, fontsize=8)
    figure.supxlabel("origin of the training images, mean over seeds", fontsize=8, color=GREY, x=0.99, ha="right")
    return png(figure)
