"""The pictures every run leaves behind: collapse curves and a grid of samples, as PNG bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from autophagy.common.records import GenerationRecord
from autophagy.metrics import metric_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAIN_METRICS = ("fid", "precision", "recall", "confidence", "entropy", "generalization_score")

# Okabe and Ito's colours without yellow and black; loops beyond the sixth repeat them with broken lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INTERVAL_SEEDS = 5  # a band is the interval of the mean; of fewer that would be wider than their range
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # one more than colours: no two loops share both
GREY = "#6b6b6b"
_DPI = 150
_TILE_PIXELS = 48  # small images are enlarged to about this height
_GAP_PIXELS = 2


def collapse_curves(
    curves: Mapping[str, Sequence[Sequence[GenerationRecord]]],
    *,
    metrics: Sequence[str] = MAIN_METRICS,
    stopped: Mapping[str, Sequence[Sequence[GenerationRecord]]] | None = None,
) -> bytes:
    """A panel per metric, a line per loop over its generations; PNG at 150 dpi.

    Several seeds of a loop become their mean and a band (see `band`). What real images reach when measured the
    same way (`Metric.floor`) is a dashed line. A metric that no record has is left out.

    Args:
        curves: name of a loop -> its seeds -> the records of each.
        metrics: keys of `autophagy.metrics.METRICS`, in the order of the panels.
        stopped: name of a loop -> those of its seeds that ended early, marked with a cross. The mean ends where
            the first of them does; beyond, the other seeds are thin lines: a mean of survivors would flatter.
    """
    return png(_curves_figure(curves, metrics, stopped or {}))


def band(values: Iterable[float]) -> tuple[float, float, float]:
    """Mean of some seeds, and what they spread over; NaN for none.

    Of fewer than INTERVAL_SEEDS the smallest and the largest value, else the 95% interval of the mean (Student's t).
    """
    known = [value for value in values if math.isfinite(value)]
    mean = math.fsum(known) / len(known) if known else math.nan
    if len(known) < INTERVAL_SEEDS:
        return mean, min(known, default=math.nan), max(known, default=math.nan)
    from scipy.special import stdtrit

    half = float(stdtrit(len(known) - 1, 0.975)) * float(np.std(known, ddof=1)) / math.sqrt(len(known))
    return mean, mean - half, mean + half


def sample_grid(rows: Sequence[tuple[str, np.ndarray]], *, columns: int = 16) -> bytes:
    """Images side by side, a labelled row for each entry; PNG. Small images are enlarged, pixels stay sharp.

    Args:
        rows: label ("real", "generation 0") and images, uint8 [n, H, W, C], C = 1 or 3, H and W the same in
            all rows; the first `columns` of each are shown, fewer leave the rest of their row white.
        columns: images in a row.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = rows[0][1].shape[1:3]
    columns = min(columns, max(len(images) for _, images in rows))
    scale = max(1, round(_TILE_PIXELS / height))
    step_y, step_x = height * scale + _GAP_PIXELS, width * scale + _GAP_PIXELS
    font = ImageFont.load_default(size=14)
    left = math.ceil(max(font.getlength(label) for label, _ in rows)) + 16
    canvas = np.full((len(rows) * step_y + _GAP_PIXELS, left + columns * step_x, 3), 255, np.uint8)
    for i, (_, images) in enumerate(rows):
        for j, image in enumerate(images[:columns]):
            y, x = _GAP_PIXELS + i * step_y, left + j * step_x
            tile = image.repeat(scale, axis=0).repeat(scale, axis=1)
            canvas[y : y + height * scale, x : x + width * scale] = tile  # grey spreads over the three channels
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for i, (label, _) in enumerate(rows):
        middle = _GAP_PIXELS + i * step_y + height * scale // 2
        draw.text((left - 8, middle), label, fill="black", font=font, anchor="rm")
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _curves_figure(
    curves: Mapping[str, Sequence[Sequence[GenerationRecord]]],
    metrics: Sequence[str],
    stopped: Mapping[str, Sequence[Sequence[GenerationRecord]]],
) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    records = [record for seeds in curves.values() for run in seeds for record in run]
    shown = [key for key in metrics if any(math.isfinite(_value(record, key)) for record in records)]
    columns = {0: 1, 1: 1, 2: 2, 4: 2}.get(len(shown), 3)
    lines = max(1, math.ceil(len(shown) / columns))
    layout = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.08)
    figure = Figure(figsize=(4.0 * columns + 0.4, 3.0 * lines + 0.6), layout=layout)
    for i, key in enumerate(shown):
        axes = figure.add_subplot(lines, columns, i + 1)
        _draw_panel(axes, key, curves, stopped)
        if i + columns >= len(shown):
            axes.set_xlabel("generation")
    if not shown:
        figure.text(0.5, 0.5, "nothing measured yet", ha="center", color=GREY)
    _draw_legend(figure)
    if any(len(seeds) > 1 for seeds in curves.values()):
        figure.supxlabel(_explained(curves.values(), bool(stopped)), fontsize=8, color=GREY, x=0.99, ha="right")
    return figure


def _explained(curves: Iterable[Sequence[object]], stopped: bool) -> str:
    """What line and band are, in words."""
    counts = [len(seeds) for seeds in curves]
    few, many = min(counts) < INTERVAL_SEEDS, max(counts) >= INTERVAL_SEEDS
    bands = ["smallest to largest"] * few + ["95% interval of the mean"] * many
    where = f" ({INTERVAL_SEEDS} seeds or more)" if len(bands) > 1 else ""
    ends = "; cross: stopped early, the mean ends at the first" if stopped else ""
    return f"line: mean of the seeds, band: {', or '.join(bands)}{where}{ends}"


def _draw_legend(figure: Figure) -> None:
    """One legend for all panels, above them: loops first, then what they are compared with."""
    labelled: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        labelled |= dict(zip(labels, handles, strict=True))
    if labelled:
        inches = 0.6 + 0.08 * max(map(len, labelled))  # of one entry: handle, gap, letters
        num_columns = max(1, int(figure.get_figwidth() / inches))
        figure.legend(
            labelled.values(),
            labelled,
            loc="outside upper left",
            ncols=num_columns,
            frameon=False,
            fontsize=9,
        )


def _draw_panel(
    axes: Axes,
    key: str,
    curves: Mapping[str, Sequence[Sequence[GenerationRecord]]],
    stopped: Mapping[str, Sequence[Sequence[GenerationRecord]]],
) -> None:
    from matplotlib.ticker import MaxNLocator

    for i, (name, seeds) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        style = "-" if i < len(COLOURS) else "-."
        ended = stopped.get(name, ())
        shared = min((run[-1].generation for run in ended), default=math.inf)
        generations, mean, low, high = _mean_and_band(seeds, key, shared)
        axes.plot(
            generations,
            mean,
            label=name,
            color=colour,
            linestyle=style,
            linewidth=1.8,
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=4,
        )
        if len(seeds) > 1:
            axes.fill_between(generations, low, high, color=colour, alpha=0.15, linewidth=0)
        if ended:
            _draw_ends(axes, key, seeds, ended, colour)
    for floor in sorted({_significant(_floor(seeds, key)) for seeds in curves.values()}):
        if math.isfinite(floor):
            axes.axhline(floor, color=GREY, linestyle="--", linewidth=1.2, label="real images", zorder=1)
    axes.set_title(title(key), loc="left", fontsize=11, fontweight="bold")
    axes.set_title(direction(key), loc="right", fontsize=8, color=GREY)
    last = max((record.generation for seeds in curves.values() for run in seeds for record in run), default=0)
    axes.set_xlim(-0.3, max(1, last) + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def _draw_ends(
    axes: Axes,
    key: str,
    seeds: Sequence[Sequence[GenerationRecord]],
    ended: Sequence[Sequence[GenerationRecord]],
    colour: str,
) -> None:
    """Crosses where seeds ended early; from the first of them on, every seed by itself."""
    shared = min(run[-1].generation for run in ended)
    for run in seeds:
        tail = [record for record in run if record.generation >= shared]
        axes.plot([r.generation for r in tail], [_value(r, key) for r in tail], color=colour, linewidth=0.8)
    generations, values = [run[-1].generation for run in ended], [_value(run[-1], key) for run in ended]
    axes.plot(generations, values, "x", color=colour, markersize=9, markeredgewidth=2)


def _mean_and_band(
    seeds: Sequence[Sequence[GenerationRecord]], key: str, shared: float
) -> tuple[list[int], list[float], list[float], list[float]]:
    """Generations up to `shared`, and `band` of the seeds that have a value there."""
    values: dict[int, list[float]] = {}
    for record in (record for run in seeds for record in run if record.generation <= shared):
        values.setdefault(record.generation, []).append(_value(record, key))
    generations = sorted(values)
    mean, low, high = zip(*(band(values[generation]) for generation in generations), strict=True)
    return generations, list(mean), list(low), list(high)


def _floor(seeds: Iterable[Sequence[GenerationRecord]], key: str) -> float:
    """What real images reach: mean over the seeds, NaN if it was not measured."""
    floor = metric_of(key).floor
    values = [_value(record, floor) for run in seeds for record in run if floor]
    known = [value for value in values if math.isfinite(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _significant(value: float) -> float:
    """Three significant digits: floors that differ less are one line."""
    return float(f"{value:.3g}")


def _value(record: GenerationRecord, key: str) -> float:
    return record.metrics.get(key, math.nan)


def title(key: str) -> str:
    """A metric's name for people."""
    return key.upper() if len(key) == 3 else key.replace("_", " ")


def direction(key: str) -> str:
    """Which end of a metric is the good one, in words; empty if neither is."""
    return {True: "↑ higher is better", False: "↓ lower is better", None: ""}[metric_of(key).higher_is_better]


def png(figure: Figure) -> bytes:
    """A figure as PNG, 150 dpi."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
