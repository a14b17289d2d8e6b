"""Does a training set of low entropy make a model that memorizes? (arXiv 2509.16499)

    python analysis/entropy_generalization.py STORE ... --out picture.png

Plots the entropy of every generation's training set against the log of its generalization score, over all loops in the
stores, and prints Pearson's r with a bootstrap interval over loops. Both depend on the data, the feature network and
the budget: points are compared within these only. Loops with self-correction are left out: their training sets hold
many copies of few images, of which nearest-neighbour entropy says nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np
import pandas as pd

from autophagy.cli import fail
from autophagy.runs.frames import runs_frame
from autophagy.store import StageStore

X, Y = "entropy", "log generalization score"
ALIKE = ["data.source", "data.image_size", "metrics.feature_network", "budget"]


def main() -> None:
    """Parse the arguments, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+")
    parser.add_argument("--out", required=True, help="PNG to write")
    arguments = parser.parse_args()
    runs = all_runs(arguments.stores)
    if runs.empty:
        fail(f"no runs in {', '.join(arguments.stores)}; run a loop first")
    points = scored(runs)
    print(correlations(points).round(3).to_string(index=False))
    draw_points(points, arguments.out)


def all_runs(stores: Iterable[str]) -> pd.DataFrame:
    """Every generation of every loop in some stores; the same loop in two stores is there once."""
    frame = pd.concat([runs_frame(StageStore(uri)) for uri in stores], ignore_index=True)
    return frame.drop_duplicates(frame.columns.difference(["seconds"]), ignore_index=True)


def scored(runs: pd.DataFrame) -> pd.DataFrame:
    """Generations >= 1 with both numbers: at generation 0 all loops are one."""
    usable = (runs["generation"] > 0) & (runs["generalization_score"] > 0)
    points = runs[usable & (runs["correction.kind"] != "self_correction")].copy()
    points[Y] = np.log(points["generalization_score"])
    points["strategy"] = points["scenario.kind"] + "/" + points["selection.strategy"]
    corrected = points["correction.kind"] != "none"
    points.loc[corrected, "strategy"] += " + " + points["correction.kind"]
    told = points["data.labels"] != "oracle"
    points.loc[told, "strategy"] += ", labels " + points["data.labels"]
    return points.dropna(subset=[X, Y])


def correlations(points: pd.DataFrame, num_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Pearson's r in each group of comparable points, with a 95% percentile bootstrap over loops.

    `within` is r of what is left when every strategy's mean is taken away: whether entropy and generalization go
    together over the generations of a loop, whatever sets strategies apart.
    """
    rng, rows = np.random.default_rng(seed), []
    for group, members in points.groupby(ALIKE):
        loops = [loop[[X, Y]].to_numpy() for _, loop in members.groupby("run")]
        resampled = [
            pearson(np.concatenate([loops[i] for i in rng.integers(len(loops), size=len(loops))]))
            for _ in range(num_resamples)
        ]
        low, high = np.nanpercentile(resampled, [2.5, 97.5])
        r = pearson(members[[X, Y]].to_numpy())
        within = pearson((members[[X, Y]] - members.groupby("strategy")[[X, Y]].transform("mean")).to_numpy())
        row = {"data": " ".join(map(str, group)), "loops": len(loops), "points": len(members)}
        rows.append(row | {"r": r, "low": low, "high": high, "within": within})
    return pd.DataFrame(rows)


def pearson(pairs: np.ndarray) -> float:
    """Correlation of two columns; NaN where one does not vary."""
    if (pairs.std(axis=0) == 0).any():
        return float("nan")
    return float(np.corrcoef(pairs.T)[0, 1])


def draw_points(points: pd.DataFrame, path: str) -> None:
    """A panel for each group of comparable points; a colour for each strategy, paler for later generations."""
    from matplotlib.figure import Figure

    groups = list(points.groupby(ALIKE))
    figure = Figure(figsize=(6.5 * len(groups), 6), layout="constrained")
    table = correlations(points)
    strategies = sorted(points["strategy"].unique())
    colour = {name: f"C{i % 10}" for i, name in enumerate(strategies)}
    marker = {name: "os^D"[i // 10] for i, name in enumerate(strategies)}
    for position, (group, members) in enumerate(groups):
        axes = figure.add_subplot(1, len(groups), position + 1)
        for name, own in members.groupby("strategy"):
            axes.scatter(own[X], own[Y], s=22, c=colour[name], marker=marker[name], label=name, alpha=0.75)
        r = table.iloc[position]
        axes.set_title(
            f"{group[0]} {group[1]}x{group[1]}, budget {group[3]}\nr = {r.r:.2f} [{r.low:.2f}, {r.high:.2f}]"
        )
        axes.set_xlabel("entropy of the training set, nats")
        axes.set_ylabel(Y)
        axes.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
