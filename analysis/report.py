"""One self-contained HTML page on a sweep, or on some loops: the answer, curves, samples, diagnostics, cost.

    python analysis/report.py NAME ... --out FILE.html [--store URI] [--timesteps T ...]

A NAME is that of a sweep or of a loop. The page loads nothing from anywhere.
"""

from __future__ import annotations

import argparse
import base64
import gzip
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from autophagy.cli import DEFAULT_STORE, fail
from autophagy.common.errors import UserError, without_secrets
from autophagy.metrics import metric_of
from autophagy.runs.folder import LOOPS, RunFolder, read_loops
from autophagy.runs.frames import runs_frame, sweep_frame
from autophagy.runs.pictures import MAIN_METRICS, title
from autophagy.runs.stored import StoredLoop
from autophagy.store import StageStore
from comparisons.arms import last, summary
from comparisons.curves import bands, ended
from comparisons.heat_maps import cells, pivot
from comparisons.pareto import pareto_table
from comparisons.survival import shares
from page import figures, parts
from page.answer import MAIN, against_random, answer_table, headline
from page.computed_by import several_versions, versions_of
from page.diagnostics import diagnose
from page.findings import gravest_first
from page.plot import Figure, Look, looks
from page.store_facts import with_store_facts, without_rows

TEMPLATES = Path(__file__).parent / "templates"
MOST_ORIGINS = 6  # arms whose training sets are shown


def main() -> None:
    """Parse the arguments and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--out", required=True, help="HTML file to write")
    parser.add_argument("--store", default=DEFAULT_STORE)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[], help="encode images there too, for OLE")
    arguments = parser.parse_args()
    try:
        page = report(arguments.store, arguments.names, arguments.timesteps)
        Path(arguments.out).write_text(page)
    except UserError as error:
        fail(str(error))
    except OSError as error:
        fail(f"--out {arguments.out}: cannot be written ({error.strerror}); give another path")
    print(f"{arguments.out}: {len(page) / 1e6:.1f} MB")


def report(uri: str, names: Sequence[str], timesteps: Sequence[int] = ()) -> str:
    """The page as HTML.

    Args:
        uri: The store; named in the page as it is here, without passwords and keys.
        names: Sweeps and loops, in any mixture.
        timesteps: At which OLE is measured by encoding a few hundred images; none: at the probe's own, from the store.

    Raises:
        UserError: there is no such sweep or loop, or none has finished a generation.
    """
    store = StageStore(uri)
    sweeps = [name for name in names if RunFolder(store, name).read(LOOPS)]
    frame = load(store, names, sweeps)
    table, why_not = against_random(frame)
    order = summary(frame, MAIN).sort_values("mean")["arm"].tolist()
    baselines = [arm for arm in order if arm in set(table.get("baseline", ()))]
    look = looks(order, baselines, [*order[:6], *order[-2:]])
    runs = last(frame).drop_duplicates("arm").set_index("arm")["run"]
    shown = list(dict.fromkeys([*baselines[:1], order[0], order[-1]]))
    versions = versions_of(store, frame["run"].unique().tolist())
    stored = {arm: StoredLoop(runs[arm], store) for arm in order}
    context = {
        **heading(store, sweeps, names, frame),
        "answer": headline(frame, table, why_not),
        "facts": parts.setting(frame),
        "table": answer_table(frame, table, why_not),
        "chips": [{"arm": arm, **look[arm].chip} for arm in order],
        "curves_caption": curves_caption(frame),
        "curves": curve_figures(frame, look),
        "heat_maps": heat_map_figures(frame, sweep_axes(store, sweeps, frame)),
        **origin_figures(frame, shown, order),
        "sheets": parts.sample_sheets(stored, baselines),
        "findings": gravest_first(
            [
                *without_rows(store, sweeps, frame),
                *several_versions(versions),
                *diagnose(frame, table if len(table) else None),
            ]
        ),
        "checks": parts.quick_checks(
            {arm: stored[arm] for arm in shown}, int(frame["metrics.num_samples"].min()), timesteps
        ),
        "cost": parts.cost(store, frame["run"].unique().tolist()) | {"pareto": pareto_figure(frame, look)},
        "reproduce": parts.reproduce(store, sweeps, frame, without_secrets(uri), versions),
    }
    return render(context)


def load(store: StageStore, names: Sequence[str], sweeps: Sequence[str]) -> pd.DataFrame:
    """The frame of some sweeps and loops, with what their stages know; arms by their shortest names."""
    alone = [name for name in names if name not in sweeps]
    parts = [sweep_frame(store, name) for name in sweeps] + ([runs_frame(store, alone)] if alone else [])
    frame = pd.concat(parts, ignore_index=True)
    if frame.empty:
        raise UserError(f"names = {', '.join(names)}: no loop has finished a generation yet; wait for the first")
    if last(frame).empty:  # better the curves of what runs than none
        unfinished = frame["state"] != "done"
        frame = frame.assign(
            state=frame["state"].where(~unfinished, "stopped"), why=frame["why"].where(~unfinished, "not at its end")
        )
    return with_store_facts(frame.assign(arm=short(frame["arm"])), store)


def short(arms: pd.Series) -> pd.Series:
    """Names without the last words that all of them share, such as the data set."""
    parts = [arm.rpartition("_") for arm in arms.unique()]
    if len(parts) < 2 or len({tail for _, _, tail in parts}) > 1 or not all(head for head, _, _ in parts):
        return arms
    return short(arms.str.rpartition("_")[0])


def heading(store: StageStore, sweeps: Sequence[str], names: Sequence[str], frame: pd.DataFrame) -> dict[str, str]:
    """Title and what stands above and below everything."""
    tables = [read_loops(store, sweep) for sweep in sweeps]
    questions = [table.question if table else "" for table in tables]
    arms, last_generation = frame["arm"].nunique(), frame["generation"].max()
    if arms > 1:
        question = f"Which of {arms} arms best withstands training on its own output?"
    else:
        question = f"What does {frame['arm'].iloc[0]} lose in {last_generation} generations of its own output?"
    if len(names) == 1 and questions and questions[0]:
        question = questions[0]
    told = ", ".join(names) if len(names) < 4 else f"{len(names)} loops"
    footer = f"Made by Autophagy on {date.today().isoformat()}."
    return {"title": question, "eyebrow": f"Autophagy \N{MIDDLE DOT} {told}", "footer": footer}


def curve_figures(frame: pd.DataFrame, look: dict[str, Look]) -> list[Figure]:
    """A figure for each main metric that was measured."""
    found = []
    for metric in MAIN_METRICS:
        if not frame[metric].notna().any():
            continue
        key = metric_of(metric).floor
        told = frame[frame["data.labels"] != "shuffled"]  # wrong labels have no ceiling
        floor = float(told[key].mean()) if key in frame else float("nan")
        found.append(figures.curve(metric, bands(frame, metric), look, floor, stopped(frame, metric)))
    return found


def stopped(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The last points of loops that a rule stopped: those that curves count as far as they go."""
    points = ended(frame, metric)
    return points[points["state"] == "stopped"]


def curves_caption(frame: pd.DataFrame) -> str:
    """What lines, bands and crosses are."""
    kinds = bands(frame, MAIN)
    caption = "Click a name to hide its curve. S_k: the samples of generation k; D_k: what it was trained on. "
    if kinds["seeds"].max() > 1:
        band = kinds["band"].mode().iloc[0].replace("range", "from the smallest to the largest")
        caption += f"Line: mean of the seeds; band: {band}. "
    caption += "Dotted: what real images reach."
    return caption + (" Cross: a loop that was stopped early." if len(stopped(frame, MAIN)) else "")


def sweep_axes(store: StageStore, sweeps: Sequence[str], frame: pd.DataFrame) -> list[str]:
    """The axes of the one sweep that is reported on, as far as its loops differ in them."""
    if len(sweeps) != 1 or frame["sweep"].nunique() > 1:
        return []
    table = read_loops(store, sweeps[0])
    return [axis for axis in (table.axes if table else []) if axis in frame and frame[axis].nunique() > 1]


def heat_map_figures(frame: pd.DataFrame, axes: Sequence[str]) -> list[Figure]:
    """FID and recall over two axes, for each value of a third; nothing for fewer axes or more."""
    if len(axes) not in (2, 3):
        return []
    rows, columns = axes[:2]
    by = axes[2] if len(axes) == 3 else "data.source"  # the same for all
    found: list[Figure] = []
    for metric in (MAIN, "recall"):
        for value, own in cells(frame, metric, rows, columns, by).groupby(by):
            name = title(metric) + (f", {value}" if len(axes) == 3 else "")
            found.append(figures.heat_map(f"heat-{len(found)}", name, pivot(own, rows, columns), metric))
    return found


def origin_figures(frame: pd.DataFrame, shown: Sequence[str], order: Sequence[str]) -> dict[str, Any]:
    """Origins of the training images of some arms."""
    arms = list(dict.fromkeys([*shown, *order]))[:MOST_ORIGINS]
    table = shares(frame)
    table = table[table["generation"] > 0]
    found: list[Figure] = []
    for i, arm in enumerate(arms):
        own = table[table["arm"] == arm]
        if len(own):
            matrix = own.pivot(index="generation", columns="origin", values="mean")
            found.append(figures.origins(f"origins-{i}", arm, matrix))
    caption = "Where the images come from that each generation is trained on. "
    caption += "Without colour: real; blue to red: generation 0 to the last."
    if len(order) > len(arms):
        caption += f" {len(arms)} of {len(order)} arms."
    return {"survival": found, "survival_caption": caption}


def pareto_figure(frame: pd.DataFrame, look: dict[str, Look]) -> Figure | None:
    """Quality against cost, where there is more than one arm."""
    points = pareto_table(frame, MAIN)
    return figures.pareto(points, look, MAIN) if len(points) > 1 and np.ptp(points["seconds"]) > 0 else None


def render(context: dict[str, Any]) -> str:
    """The template, with style, script and plot library in it."""
    # Compressed, the library is a third as large; the page unpacks it.
    packed = base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
    parts = {"css": "report.css", "js": "report.js"}
    texts = {name: (TEMPLATES / file).read_text() for name, file in parts.items()}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html").render(context | texts | {"plotly": packed})


if __name__ == "__main__":
    main()
