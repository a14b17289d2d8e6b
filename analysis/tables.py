"""All tables and pictures of a sweep, as CSV, LaTeX and PNG.

    python analysis/tables.py NAME --store S --out FOLDER
    python analysis/tables.py NAME --tracking-uri sqlite:////ABSOLUTE/mlflow.db --out FOLDER

The numbers are those of the store, or with a tracking URI those of MLflow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from autophagy.cli import DEFAULT_STORE, fail
from autophagy.common.errors import UserError
from autophagy.runs.frames import sweep_frame
from autophagy.runs.pictures import MAIN_METRICS
from autophagy.store import StageStore
from autophagy.tracking.reading import mlflow_frame
from comparisons import curves, disagreement, export, heat_maps, lifetimes, paired, pareto, survival
from comparisons.arms import check_metric, higher_is_better

Content = str | bytes | pd.DataFrame


def main() -> None:
    """Parse the arguments and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the sweep")
    parser.add_argument("--store", default=DEFAULT_STORE)
    parser.add_argument("--tracking-uri", help="read MLflow instead of the store")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    parser.add_argument("--metrics", nargs="+", help=f"the first is the main one; default: {' '.join(MAIN_METRICS)}")
    arguments = parser.parse_args()
    try:
        if arguments.tracking_uri:
            frame = mlflow_frame(arguments.tracking_uri, arguments.name)
        else:
            frame = sweep_frame(StageStore(arguments.store), arguments.name)
        if frame.empty:
            raise UserError(f"sweep = {arguments.name}: no loop has finished a generation; wait for the first")
        measured = [metric for metric in MAIN_METRICS if frame[metric].notna().any()]
        metrics = [check_metric(frame, metric) for metric in arguments.metrics or measured]
        arguments.out.mkdir(parents=True, exist_ok=True)
        for file, content in files(frame, metrics):
            write(arguments.out / file, content)
            print(arguments.out / file)
    except (UserError, OSError) as error:
        fail(str(error))


def write(path: Path, content: Content) -> None:
    """Write a table, a text or a picture."""
    if isinstance(content, pd.DataFrame):
        content = content.to_csv(index=False)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def files(frame: pd.DataFrame, metrics: Sequence[str]) -> Iterator[tuple[str, Content]]:
    """Name and content of every table and picture; what cannot be made is told, and left out."""
    main = metrics[0]
    directed = [metric for metric in metrics if higher_is_better(metric) is not None]
    parts: dict[str, Callable[[], Content]] = {
        "generations.csv": lambda: frame,
        "curves.csv": lambda: _each(metrics, lambda metric: curves.bands(frame, metric)),
        "ended_early.csv": lambda: curves.ended(frame, main),
        "lifetimes.csv": lambda: _each(metrics, lambda metric: lifetimes.lifetimes(frame, metric)),
        "comparison.csv": lambda: comparison(frame, metrics),
        "arms.csv": lambda: export.arms_table(frame, metrics),
        "arms.tex": lambda: export.to_latex(export.arms_table(frame, metrics)),
        "survival.csv": lambda: survival.shares(frame),
        "survival.png": lambda: survival.draw_shares(frame),
        "pareto.csv": lambda: pareto.pareto_table(frame, main),
        "pareto.png": lambda: pareto.draw_pareto(frame, main),
        "kendall.csv": lambda: disagreement.kendall(frame, directed).reset_index(names="metric"),
        "disagreements.csv": lambda: disagreement.disagreements(frame, directed),
        "disagreement.png": lambda: disagreement.draw_agreement(frame, directed),
    }
    for name, part in curves.by_picture(frame).items():
        parts[f"collapse_curves{name}.png"] = partial(curves.draw_curves, part, metrics)
    axes = [axis for axis in frame.attrs.get("axes", []) if axis != heat_maps.SCENARIO]
    axes.sort(key=lambda axis: axis == heat_maps.COLUMNS)  # which lies along the columns, where it is one of them
    for metric in metrics:
        parts[f"comparison_{metric}.png"] = partial(_comparison_picture, frame, metric)
        if len(axes) > 1:
            parts[f"heat_map_{metric}.png"] = partial(heat_maps.draw_cells, frame, metric, *axes[:2])
    for name, make in parts.items():
        try:
            yield name, make()
        except UserError as error:
            print(f"no {name}: {error}", file=sys.stderr)


def comparison(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Paired tests of every metric, at the last generation and over all."""
    measures: tuple[paired.Measure, ...] = ("last", "area")
    return pd.concat([paired.paired_tests(frame, metrics, measure) for measure in measures])


def _comparison_picture(frame: pd.DataFrame, metric: str) -> bytes:
    tests = paired.paired_tests(frame, [metric])
    if tests.empty:
        raise UserError("selection.strategy: no arm with random selection that another could be compared with")
    return paired.draw_differences(tests)


def _each(metrics: Sequence[str], table: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """The tables of several metrics under each other, the metric in front."""
    return pd.concat([table(metric).assign(metric=metric).set_index("metric").reset_index() for metric in metrics])


if __name__ == "__main__":
    main()
