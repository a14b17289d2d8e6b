"""One table for a paper: arms by metrics, as CSV and as LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from autophagy.runs.pictures import INTERVAL_SEEDS, MAIN_METRICS, title
from comparisons.arms import higher_is_better, summary, three_digits
from comparisons.paired import paired_tests

_ESCAPED = {"\\": r"\textbackslash{}"} | {character: f"\\{character}" for character in "&%$#_{}"}
_ESCAPED |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def arms_table(frame: pd.DataFrame, metrics: Sequence[str] = MAIN_METRICS, baseline: str | None = None) -> pd.DataFrame:
    """Every arm by every metric at the end of the loops.

    Returns:
        A row for each arm and metric, baselines first: columns `arm`, `metric`, `mean`, `low`, `high`, `seeds`,
        `early`, `left_out` (see `arms.summary`), `best` (of the metric; never where neither end is better) and
        `verdict` (see `paired.paired_tests`; `baseline` for the baseline itself, `no baseline` where there is none).

    Raises:
        UserError: as `paired.paired_tests`.
    """
    tests = paired_tests(frame, metrics, baseline=baseline)
    verdicts = tests.set_index(["arm", "metric"])["verdict"].to_dict()
    baselines = set(tests["baseline"])
    tables = []
    for metric in metrics:
        table, better = summary(frame, metric).assign(metric=metric), higher_is_better(metric)
        best = table["mean"].max() if better else table["mean"].min()
        table["best"] = (table["mean"] == best) & (better is not None)
        missing = {arm: "baseline" if arm in baselines else "no baseline" for arm in table["arm"]}
        table["verdict"] = [verdicts.get((arm, metric), missing[arm]) for arm in table["arm"]]
        tables.append(table)
    table = pd.concat(tables)
    table = table.sort_values("verdict", key=lambda column: column != "baseline", kind="stable", ignore_index=True)
    columns = ["arm", "metric", "mean", "low", "high", "seeds", "early", "left_out", "best", "verdict"]
    return table[columns]


def to_latex(table: pd.DataFrame, caption: str = "") -> str:
    """`arms_table` as a LaTeX table; needs the package booktabs.

    The best mean of each metric is bold. A circle marks means that are not decisively different from the baseline's,
    a dagger arms with loops that were stopped early.
    """
    metrics = list(dict.fromkeys(table["metric"]))
    cells: dict[str, dict[str, dict[Any, Any]]] = {}
    for row in table.to_dict("records"):
        cells.setdefault(row["arm"], {})[row["metric"]] = row
    lines = []
    for arm, own in cells.items():
        early = any(row["early"] for row in own.values())
        name = escape(arm) + ("$^{\\dagger}$" if early else "")
        lines.append(" & ".join([name, *(_cell(own.get(metric)) for metric in metrics)]) + r" \\")
    arrows = {True: r" $\uparrow$", False: r" $\downarrow$", None: ""}
    heads = [escape(title(metric)) + arrows[higher_is_better(metric)] for metric in metrics]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{' '.join(filter(None, [escape(caption), _explained(table)]))}}}",
            rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
            r"\toprule",
            " & ".join(["arm", *heads]) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_ESCAPED.get(character, character) for character in text)


def _cell(row: Mapping[Any, Any] | None) -> str:
    if row is None or math.isnan(row["mean"]):
        return "--"
    mean = three_digits(row["mean"])
    text = rf"\textbf{{{mean}}}" if row["best"] else mean
    if row["seeds"] > 1:
        text += rf" {{\scriptsize [{three_digits(row['low'])}, {three_digits(row['high'])}]}}"
    return text + ("$^{\\circ}$" if row["verdict"] == "not decisive" else "")


def _explained(table: pd.DataFrame) -> str:
    """What the numbers and marks are, in LaTeX."""
    seeds = table["seeds"]
    few, many = "smallest and largest value", r"95\% $t$ interval"
    span = few if seeds.max() < INTERVAL_SEEDS else many
    if seeds.min() < INTERVAL_SEEDS <= seeds.max():
        span = f"{few}, or from {INTERVAL_SEEDS} seeds on {many}"
    counts = "--".join(str(count) for count in sorted({int(seeds.min()), int(seeds.max())}))
    told = [f"Last generation: mean [{span}] over {counts} seeds."]
    if table["best"].any():
        told.append("Bold: best.")
    if (table["verdict"] == "not decisive").any():
        told.append(r"$\circ$: not decisively different from random selection (paired test, Holm, 5\%).")
    if table["early"].any():
        told.append(r"$\dagger$: with loops that were stopped early.")
    return " ".join(told)
