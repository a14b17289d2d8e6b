"""Measure others' features."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from autophagy.common.errors import UserError
from autophagy.common.samples import FEATURES, LABEL
from autophagy.common.seeds import rng_for
from autophagy.metrics import METRICS
from autophagy.metrics.measured import Measured, measure, real_vs_real
from autophagy.standalone.columns import read_columns
from autophagy.standalone.select import writing


@dataclass(frozen=True)
class SetScores:
    """The metrics of one synthetic set, and the floor that real data themselves reach."""

    metrics: Mapping[str, float]  # keys of METRICS; NaN where undefined
    real_vs_real: Mapping[str, float]  # the same keys: one random half of the real rows against the other
    num_rows: Mapping[str, int]  # of real, synthetic, training
    width: int
    k: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object; NaN becomes null."""
        plain = {
            name: {key: None if math.isnan(value) else value for key, value in values.items()}
            for name, values in (("metrics", self.metrics), ("real_vs_real", self.real_vs_real))
        }
        return {**plain, "num_rows": dict(self.num_rows), "width": self.width, "k": self.k, "seed": self.seed}

    def notes(self) -> list[str]:
        """What to know before comparing these numbers with others, a line each."""
        n, notes = self.num_rows, []
        if n["real"] != n["synthetic"]:
            notes.append(
                f"{n['real']} real and {n['synthetic']} synthetic rows: fid, entropy and coverage depend on the "
                "numbers; compare only scores of equal sizes"
            )
        if any(map(math.isnan, self.metrics.values())):
            notes.append("undefined: it takes more rows, or features of more dimensions")
        if self.real_vs_real:
            notes.append(f"real vs real: two random halves, {n['real'] // 2} rows each")
        return notes


def read_set(path: str) -> dict[str, np.ndarray]:
    """`features` [n, D], finite, and `label` [n] if there are any, of one file to score.

    Raises:
        UserError: see `read_columns`; or no features, or some that are not finite.
    """
    columns = read_columns(path, (FEATURES, LABEL))
    if FEATURES not in columns:
        raise UserError(f"{path}: has no column {FEATURES}; name one so")
    bad = np.flatnonzero(~np.isfinite(columns[FEATURES]).all(axis=1))
    if len(bad):
        raise UserError(f"{path}: {len(bad)} rows of {FEATURES} are not finite, the first is row {bad[0]}; remove them")
    return columns


def score_sets(
    real: Mapping[str, np.ndarray],
    synthetic: Mapping[str, np.ndarray],
    training: Mapping[str, np.ndarray] | None = None,
    *,
    k: int = 5,
    seed: int = 0,
) -> SetScores:
    """All metrics that are defined for plain features.

    Args:
        real: `features` [n, D], held out from training; `label` [n] or none.
        synthetic: `features` [m, D]; `label` [m] or none. With both labels the class histograms are compared.
        training: `features` [t, D], what the generator was trained on, for memorization and its entropy.
        k: Neighbours of precision, recall, density and coverage.
        seed: Of random subsets and halves.

    Raises:
        UserError: the features have different widths.
    """
    sets = {"real": real, "synthetic": synthetic} | ({} if training is None else {"training": training})
    features = {name: columns[FEATURES] for name, columns in sets.items()}
    width = features["real"].shape[1]
    for name, x in features.items():
        if x.shape[1] != width:
            raise UserError(f"{name}: features of width {x.shape[1]}, not {width} as the real ones; use one network")
    given: dict[str, Any] = {} if training is None else {"training": features["training"]}
    if LABEL in real and LABEL in synthetic:
        given |= {"synthetic_predicted": synthetic[LABEL], "reference_label": real[LABEL]}
    values = measure(Measured(features["real"], features["synthetic"], k=k, seed=seed, **given))
    return SetScores(
        metrics={key: values[key] for key, metric in METRICS.items() if given.keys() >= set(metric.needs)},
        real_vs_real=_floor(features["real"], k, seed),
        num_rows={name: len(x) for name, x in features.items()},
        width=width,
        k=k,
        seed=seed,
    )


def _floor(real: np.ndarray, k: int, seed: int) -> dict[str, float]:
    """What one random half of the real rows scores against the other; {} where they are too few."""
    half = len(real) // 2
    order = rng_for(seed, "halves").permutation(len(real))
    values = real_vs_real(real[order[:half]], real[order[half : 2 * half]], k, seed)
    named = {key: values[m.floor] for key, m in METRICS.items() if m.floor and m.floor in values}
    return {} if any(map(math.isnan, named.values())) else named


def write_scores(scores: SetScores, path: str) -> None:
    """Write `SetScores.to_json` to a file.

    Raises:
        UserError: the file cannot be written.
    """
    with writing(path) as place:
        place.write_text(json.dumps(scores.to_json(), indent=1) + "\n")


def score_table(scores: SetScores) -> Table:
    """A table to print: a metric in each row."""
    table = Table("metric", "value", "real vs real", "better", "what it is", box=None, pad_edge=False)
    for key, value in scores.metrics.items():
        metric = METRICS[key]
        better = {None: "", True: "higher", False: "lower"}[metric.higher_is_better]
        # The registry speaks of loops: S_k is what generation k makes, D_k what it is trained on.
        what = metric.description.replace("S_k", "synthetic").replace("D_k", "training")
        table.add_row(key, _number(value), _number(scores.real_vs_real.get(key)), better, what)
    return table


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return "undefined" if math.isnan(value) else f"{value:.4g}"
