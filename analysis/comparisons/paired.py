"""Is an arm better than random selection at the same cost? Paired tests over seeds, corrected for how many are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from autophagy.common.errors import UserError
from autophagy.runs.pictures import COLOURS, GREY, direction, png, title
from comparisons.arms import area, check_metric, counted, higher_is_better, mark, random_arms, settings

LEVEL = 0.05
MOST_FLIPPED = 12  # pairs whose 2^n signs are all tried
# What makes a generation cost what it costs.
SPENT = ("budget", "training.epochs", "training.global_batch_size", "training.equal_steps")
CHOSEN = ("selection.", "correction.")  # what an arm and its baseline may differ in
SIGN_FLIP = "exact sign flips"
STUDENT = "paired t, assuming normal differences"
COLUMNS = [
    *("metric", "measure", "arm", "baseline", "differs", "pairs", "dropped", "early", "mean", "baseline_mean"),
    *("difference", "low", "high", "p", "p_holm", "test", "verdict"),
]

Measure = Literal["last", "area"]


def paired_tests(
    frame: pd.DataFrame, metrics: Sequence[str] = ("fid",), measure: Measure = "last", baseline: str | None = None
) -> pd.DataFrame:
    """Every arm against its baseline, seed by seed.

    A pair is two loops of one seed, compared at the last generation that both reached. A loop that a rule stopped
    early stays in its pair; a loop that failed or still runs, or has no partner, is dropped and counted.

    The test flips the signs of the differences in all ways, which assumes nothing but their symmetry. With n pairs
    its p is at least 2 / 2^n: where that cannot reach the level after Holm's correction, and with more than
    MOST_FLIPPED pairs, it is Student's t, which assumes normal differences. A single pair is not tested.

    Args:
        frame: One row per loop and generation.
        metrics: Its columns; each is a family of tests of its own.
        measure: `last`: the value at the last generation; `area`: the mean height of the curve up to there.
        baseline: The arm that all are compared with; None: for each the arm with random selection and no correction
            that is most like it.

    Returns:
        Columns COLUMNS, a row for each metric and arm. `differs`: fields besides the selection in which the baseline
        differs. `difference`: arm less baseline, mean over the pairs, with its 95% t interval `low`, `high`.
        `verdict`: better or worse (p_holm <= 0.05), `not decisive`, or `no direction` for a metric that has none.

    Raises:
        UserError: an arm and its baseline differ in budget or optimisation steps, or there is no such arm or metric.
    """
    known = settings(frame)
    if baseline is not None and baseline not in known.index:
        raise UserError(f"baseline = {baseline}: no such arm; there are: {', '.join(map(str, known.index))}")
    random = random_arms(frame)
    partners = {str(arm): baseline or nearest(known, str(arm), random) for arm in known.index}
    tables = []
    for metric in metrics:
        rows = [
            _compared(frame, check_metric(frame, metric), measure, arm, partner, known)
            for arm, partner in partners.items()
            if partner is not None and partner != arm
        ]
        tables.append(pd.DataFrame(_decided(rows), columns=COLUMNS))
    return pd.concat(tables, ignore_index=True)


def nearest(known: pd.DataFrame, arm: str, candidates: Sequence[str]) -> str | None:
    """The candidate that differs from an arm in the fewest fields besides the selection.

    Args:
        known: The fields of the arms, `arms.settings`.
        arm: One of its rows.
        candidates: Others, or the arm itself, which then is its own.

    Returns:
        Its name; None if there is none, or several are equally near.
    """
    counts = {name: len(differing(known, arm, name)) for name in candidates}
    closest = [name for name, count in counts.items() if count == min(counts.values())]
    if arm in closest:
        return arm
    return closest[0] if len(closest) == 1 else None


def differing(known: pd.DataFrame, arm: str, other: str) -> list[str]:
    """Fields in which two arms differ, selection and correction left out."""
    names = [str(name) for name in known.columns if not str(name).startswith(CHOSEN)]
    values = [(known[name][arm], known[name][other]) for name in names]
    same = [a == b or (pd.isna(a) and pd.isna(b)) for a, b in values]
    return [name for name, equal in zip(names, same, strict=True) if not equal]


def sign_flip(differences: np.ndarray) -> float:
    """Two-sided p of the mean among all 2^n choices of signs."""
    flipped = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    return float(flipped.pvalue)


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction: adjusted p of each test, in the given order."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def pairs(frame: pd.DataFrame, metric: str, measure: Measure, arm: str, baseline: str) -> pd.DataFrame:
    """The pairs of two arms: columns `seed`, `generation` (compared at), `value`, `other`, `early`."""
    rows = counted(frame).dropna(subset=[metric])
    sides = [rows[rows["arm"] == name] for name in (arm, baseline)]
    found = []
    for seed in np.intersect1d(sides[0]["seed"], sides[1]["seed"]):
        loops = [side[side["seed"] == seed] for side in sides]
        generation = min(int(loop["generation"].max()) for loop in loops)
        values = [_height(loop, metric, measure, generation) for loop in loops]
        asked = min(int(loop["generations"].iloc[0]) for loop in loops)
        early = generation < asked
        found.append({"seed": seed, "generation": generation, "value": values[0], "other": values[1], "early": early})
    return pd.DataFrame(found, columns=["seed", "generation", "value", "other", "early"])


def draw_differences(table: pd.DataFrame) -> bytes:
    """The differences of one metric with their intervals, the best arm on top; PNG.

    Args:
        table: Rows of `paired_tests` with one metric and one measure.
    """
    from matplotlib.figure import Figure

    metric, measure = table["metric"].iloc[0], table["measure"].iloc[0]
    shown = table.sort_values("difference", ascending=higher_is_better(metric) is not False)  # positions grow upwards
    figure = Figure(figsize=(7, 1.3 + 0.3 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    looks = {"better": COLOURS[2], "worse": COLOURS[1]}
    rows = shown.to_dict("records")
    for position, row in enumerate(rows):
        colour = looks.get(row["verdict"], GREY)
        axes.plot([row["low"], row["high"]], [position, position], color=colour, linewidth=1.8)
        axes.plot(row["difference"], position, "o", color=colour, mfc=colour if row["verdict"] in looks else "white")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [mark(row["arm"], row["early"]) for row in rows])
    axes.tick_params(labelsize=9)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    where = "at the last generation" if measure == "last" else "as mean over the generations"
    names = shown["baseline"].unique()
    against = names[0] if len(names) == 1 else "random selection, else equal"
    figure.suptitle(f"{title(metric)} {where}, less that of {against}", fontsize=10, x=0.01, ha="left", weight="bold")
    seeds = "-".join(str(count) for count in sorted({shown["pairs"].min(), shown["pairs"].max()}))
    told = f"mean and 95% t interval of {seeds} pairs; filled: decisive after Holm's correction"
    if shown["pairs"].max() < 2:
        told = "one pair of loops each, from which nothing can be decided"
    dagger = "; † stopped early" * bool(shown["early"].any())
    axes.set_title(direction(metric), loc="right", fontsize=8, color=GREY)
    figure.supxlabel(f"{told}{dagger}", fontsize=8, color=GREY, x=0.99, ha="right")
    return png(figure)


def _height(loop: pd.DataFrame, metric: str, measure: Measure, generation: int) -> float:
    if measure == "area":
        return area(loop, metric, generation)
    return float(loop.loc[loop["generation"] == generation, metric].iloc[0])


def _compared(
    frame: pd.DataFrame, metric: str, measure: Measure, arm: str, baseline: str, known: pd.DataFrame
) -> tuple[dict[str, Any], np.ndarray]:
    """The row of one arm, without what depends on the other arms, and its differences, [pairs]."""
    differs = differing(known, arm, baseline)
    _check_equal_cost(known, arm, baseline, differs)
    own = pairs(frame, metric, measure, arm, baseline)
    seeds = frame.loc[frame["arm"].isin([arm, baseline]), "seed"].nunique()
    differences = (own["value"] - own["other"]).to_numpy(float)
    low, high = _interval(differences)
    row = {
        "metric": metric,
        "measure": measure,
        "arm": arm,
        "baseline": baseline,
        "differs": ", ".join(differs),
        "pairs": len(own),
        "dropped": seeds - len(own),
        "early": int(own["early"].sum()),
        "mean": own["value"].mean(),
        "baseline_mean": own["other"].mean(),
        "difference": differences.mean() if len(own) else math.nan,
        "low": low,
        "high": high,
    }
    return row, differences


def _check_equal_cost(known: pd.DataFrame, arm: str, baseline: str, differs: Sequence[str]) -> None:
    unequal = [field for field in SPENT if field in differs]
    if "scenario.kind" in differs and not known.loc[arm, "training.equal_steps"]:
        unequal.append("training.equal_steps")  # steps then follow from the size of the training set
    if unequal:
        own, other = (known[unequal[0]][name] for name in (arm, baseline))
        raise UserError(
            f"{unequal[0]} = {own} in arm {arm!r} and {other} in {baseline!r}: they "
            "do not cost the same; compare arms of equal budget and steps, or leave one out of the frame"
        )


def _interval(differences: np.ndarray) -> tuple[float, float]:
    """95% t interval of the mean; NaN for fewer than two."""
    n = len(differences)
    if n < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1) * differences.std(ddof=1) / math.sqrt(n))
    return float(differences.mean() - half), float(differences.mean() + half)


def _decided(compared: Sequence[tuple[dict[str, Any], np.ndarray]]) -> list[dict[str, Any]]:
    """Rows with p, its correction over all of them, and the verdict."""
    tested = [(row, differences) for row, differences in compared if len(differences) > 1]
    for row, differences in tested:
        row["p"], row["test"] = _p(differences, len(tested))
    for (row, _), p in zip(tested, holm([row["p"] for row, _ in tested]), strict=True):
        row["p_holm"] = p
    return [row | {"verdict": _verdict(row)} for row, _ in compared]


def _p(differences: np.ndarray, num_tests: int) -> tuple[float, str]:
    """Two-sided p of a mean of zero, and the test that can decide among so many."""
    n = len(differences)
    if n <= MOST_FLIPPED and num_tests * 2 / 2**n <= LEVEL:
        return sign_flip(differences), SIGN_FLIP
    if differences.std() == 0:
        return float(not differences.any()), STUDENT
    return float(stats.ttest_1samp(differences, 0).pvalue), STUDENT


def _verdict(row: Mapping[str, Any]) -> str:
    better = higher_is_better(row["metric"])
    if better is None:
        return "no direction"
    if not row.get("p_holm", math.nan) <= LEVEL:
        return "not decisive"
    return "better" if (row["difference"] > 0) == better else "worse"
