"""What only the store knows of some loops."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from autophagy.common.samples import FEATURES
from autophagy.runs.folder import read_loops, read_records
from autophagy.runs.outcomes import Outcome, read_outcomes
from autophagy.store import Artifact, StageStore
from page.findings import Finding, and_more


def with_store_facts(frame: pd.DataFrame, store: StageStore) -> pd.DataFrame:
    """The frame with what only the stages know: `feature_width`, `num_classes`, `num_reference` (NaN if they are gone).

    Every stage is opened once, however many loops share it.
    """
    facts: dict[str, dict[str, float]] = {}
    known: dict[tuple[str, str], Artifact | None] = {}
    for run in frame["run"].unique():
        stages = read_records(store, run)[0].stages
        opened = []
        for name in ("real", "score"):
            place = (name, stages[name])
            if place not in known:
                known[place] = store.open(*place)
            opened.append(known[place])
        facts[run] = _facts(*opened)
    return frame.join(pd.DataFrame.from_dict(facts, orient="index"), on="run")


def _facts(real: Artifact | None, score: Artifact | None) -> dict[str, float]:
    facts = dict.fromkeys(("feature_width", "num_classes", "num_reference"), float("nan"))
    if real:
        facts |= {"num_classes": real.info["num_classes"], "num_reference": real.info["sizes"]["held_out"]}
    if score:
        column = parquet.read_schema(score.parquet_files("held_out")[0], filesystem=score.fs).field(FEATURES).type
        facts["feature_width"] = column.shape[0] if isinstance(column, pa.FixedShapeTensorType) else column.list_size
    return facts


def without_rows(store: StageStore, sweeps: Iterable[str], frame: pd.DataFrame) -> list[Finding]:
    """Loops of sweeps that have not finished a single generation, and so have no row in any table or curve."""
    absent: dict[str, str] = {}
    for sweep in sweeps:
        outcomes = read_outcomes(store, sweep)
        table = read_loops(store, sweep)
        for run in [loop.run for loop in table.loops] if table else []:
            if run not in set(frame["run"]):
                absent[run] = outcomes.get(run, Outcome()).why or "not started"
    if not absent:
        return []
    told = "; ".join(f"{run}: {why}" for run, why in list(absent.items())[:3])
    sentence = f"{len(absent)} of the planned loops are in no table and no curve ({told}{and_more(len(absent), 3)})."
    return [Finding("warning", "Loops without a result", sentence, "Run the same sweep again: it goes on with these.")]
