"""What a report says first: the answer in a sentence, as far as the paired tests carry it, and the table behind it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from autophagy.common.errors import UserError
from autophagy.runs.pictures import INTERVAL_SEEDS, title
from comparisons.arms import last, summary
from comparisons.paired import paired_tests

MAIN = "fid"  # what decides
BESIDE = ("precision", "recall", "confidence", "entropy", "real_share")  # also in the table
Row = Mapping[Hashable, Any]  # of a frame
NAMES_A_SENTENCE = 4


def against_random(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The paired tests of every arm against random selection by the main metric; if there are none, why."""
    if frame["arm"].nunique() < 2:
        return pd.DataFrame(columns=["arm", "verdict"]), "There is one arm, and nothing to compare it with."
    try:
        table = paired_tests(frame, [MAIN])
    except UserError as error:
        return pd.DataFrame(columns=["arm", "verdict"]), f"Nothing is tested: {error}."
    if not len(table):
        if frame["selection.strategy"].eq("random").any():
            return table, "Nothing is tested: no arm has exactly one arm with random selection that is most like it."
        return table, "No arm selects at random, so that there is nothing to test against."
    return table, ""


def headline(frame: pd.DataFrame, table: pd.DataFrame, why_not: str) -> list[str]:
    """The answer in one to three sentences; a difference that is not decisive is called so.

    Args:
        frame: One row per loop and generation, with at least one loop that counts.
        table: Of `against_random`; so is `why_not`.
    """
    if not len(table):
        return [_decline(frame, best_arm(frame)), why_not]
    ranked = table.sort_values("mean")
    better, worse, undecided = (
        ranked.loc[ranked["verdict"] == verdict, "arm"].tolist() for verdict in ("better", "worse", "not decisive")
    )
    than = f"a lower {title(MAIN)} than random selection at the same cost"
    if better:
        sentences = [f"{_names(better)} {'ends' if len(better) == 1 else 'end'} at {than}."]
    elif undecided:
        sentences = [f"Not decisive: no arm is shown to end at {than}."]
    else:
        sentences = [f"No arm ends at {than}."]
    lowest = [*better, *undecided, *worse][0]
    sentences.append(_told(ranked[ranked["arm"] == lowest].iloc[0]))
    if worse:
        sentences.append(f"Worse than random selection: {_names(worse)}.")
    others = [arm for arm in undecided if arm != lowest]
    if others and (better or worse):
        sentences.append(f"Not decisive either way: {_names(others)}.")
    return [*sentences, _decline(frame, str(table["baseline"].mode().iloc[0]))]


def _told(row: pd.Series) -> str:
    """One comparison in numbers."""
    arm, baseline = _quoted(row["arm"]), _quoted(row["baseline"])
    text = f"{arm} ends at {readable(row['mean'])} where {baseline} ends at {readable(row['baseline_mean'])}"
    if not row["pairs"]:
        return f"{arm} shares no seed with {baseline}."
    if row["pairs"] == 1:
        return f"{text}, with a single seed, which decides nothing."
    interval = f"95% interval of the difference {readable(row['low'])} to {readable(row['high'])}"
    return f"{text}, over {row['pairs']} seeds ({interval}; p = {row['p_holm']:.2g} after Holm's correction)."


def _names(arms: Sequence[str]) -> str:
    """A few names in words."""
    names = [_quoted(arm) for arm in arms]
    if len(names) > NAMES_A_SENTENCE:
        return f"{', '.join(names[: NAMES_A_SENTENCE - 1])} and {len(names) - NAMES_A_SENTENCE + 1} others"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _quoted(arm: str) -> str:
    """A name that has a comma in it would not read as one."""
    return f'"{arm}"' if "," in arm else arm


def best_arm(frame: pd.DataFrame) -> str:
    """The arm with the lowest mean of the main metric at the end."""
    return str(summary(frame, MAIN).sort_values("mean")["arm"].iloc[0])


def _decline(frame: pd.DataFrame, arm: str) -> str:
    """How far an arm falls over its generations."""
    own = frame[(frame["arm"] == arm) & frame["run"].isin(last(frame)["run"])]
    ends = own.groupby("run")["generation"].max().min()
    first = own.loc[own["generation"] == own["generation"].min(), MAIN].mean()
    end = own.loc[own["generation"] == ends, MAIN].mean()
    goes, generations = "grows" if end > first else "falls", f"{ends} generation" + ("" if ends == 1 else "s")
    return f"In {_quoted(arm)}, {title(MAIN)} {goes} from {readable(first)} to {readable(end)} in {generations}."


def answer_table(frame: pd.DataFrame, table: pd.DataFrame, why_not: str) -> dict[str, Any]:
    """The arms from the lowest to the highest main metric, each with its verdict and what else there is to weigh."""
    metrics = [m for m in BESIDE if frame[m].notna().any()]
    ends = summary(frame, MAIN).sort_values("mean")
    beside = [_by_arm(summary(frame, metric)) for metric in metrics]
    compared = _by_arm(table)
    baselines = {row["baseline"] for row in compared.values()}
    rows = []
    for arm, own in _by_arm(ends).items():
        cells = [_value(own)]
        if len(table):
            cells += _against(compared.get(arm), arm in baselines)
        cells += [_value(values[arm]) if arm in values else _cell("") for values in beside]
        cells.append(_cell(f"{own['seeds']:.0f}", f"{own['left_out']:.0f} left out" if own["left_out"] else ""))
        marks = [f"{own['early']:.0f} stopped early"] if own["early"] else []
        if arm in compared and compared[arm]["differs"]:
            marks.append(f"also differs in {compared[arm]['differs']}")
        rows.append({"arm": arm, "cells": cells, "mark": "; ".join(marks), "baseline": arm in baselines})
    against = ["against random", "verdict"] if len(table) else []
    columns = ["arm", title(MAIN), *against, *map(title, metrics), "loops"]
    return {"columns": columns, "rows": rows, "caption": _caption(ends, table, why_not)}


def _by_arm(table: pd.DataFrame) -> dict[str, Row]:
    return {row["arm"]: row for row in table.to_dict("records")}


def _against(row: Row | None, is_baseline: bool) -> list[dict[str, str]]:
    """Difference to the baseline, and the verdict; `row` is one of `against_random`."""
    if row is None:
        return [_cell(""), _cell("baseline" if is_baseline else "not compared")]
    interval = f"{readable(row['low'])} to {readable(row['high'])}" if row["pairs"] > 1 else ""
    pairs = "1 pair" if row["pairs"] == 1 else f"{row['pairs']} pairs"
    told = pairs if math.isnan(row["p_holm"]) else f"p = {row['p_holm']:.2g}, {pairs}"
    sign = "+" if row["difference"] > 0 else ""
    return [_cell(sign + readable(row["difference"]), interval), _cell(row["verdict"], told, row["verdict"])]


def _caption(values: pd.DataFrame, table: pd.DataFrame, why_not: str) -> str:
    enough = values["seeds"].min() >= INTERVAL_SEEDS
    spread = "the 95% interval of the mean" if enough else "the smallest and largest seed"
    text = f"Means of the last generation; below, {spread}. " if values["seeds"].max() > 1 else "The last generation. "
    if not len(table):
        return text + why_not
    used = ", ".join(sorted(set(table["test"].dropna())))
    test = f" ({used})" if used else ""
    return (
        f"{text}Against random: the difference of {title(MAIN)}, seed by seed, with its 95% interval. A verdict needs "
        f"p \N{LESS-THAN OR EQUAL TO} 0.05 after Holm's correction for {len(table)} comparisons{test}."
    )


def _value(row: Row) -> dict[str, str]:
    spread = f"{readable(row['low'])} to {readable(row['high'])}" if row["high"] > row["low"] else ""
    return _cell(readable(row["mean"]), spread)


def _cell(value: str, small: str = "", verdict: str = "") -> dict[str, str]:
    return {"value": value, "small": small, "verdict": verdict}


def readable(value: float) -> str:
    """Three digits, without an exponent where people would not write one."""
    if math.isnan(value):
        return "\N{EN DASH}"
    if 0.001 <= abs(value) < 1:
        text = f"{value:.3f}"
    else:
        text = f"{value:,.0f}" if 100 <= abs(value) < 1e7 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")
