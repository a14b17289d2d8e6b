"""What was recorded, as a pandas frame: a row for each loop and generation, from run folders or from MLflow.

Columns: `sweep` ("" if none), `run`, `arm` (loops that differ in nothing but the seed share one), `seed`, `generation`,
`state` (done, stopped: ended early on purpose, failed, running), `why`; every field of the experiment by its dotted
name and, beside these, the axes of the sweep that are no such field (labels, as text); every metric under its key, all
of `METRICS` among them, NaN where undefined; and `seconds`, the sum over the stages of that generation. The names of
the axes are in `frame.attrs["axes"]`.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from autophagy.common.errors import UserError
from autophagy.common.records import GenerationRecord
from autophagy.config import Experiment
from autophagy.config.settings import flatten
from autophagy.metrics import METRICS
from autophagy.runs.claims import read_experiment
from autophagy.runs.folder import LOOPS, LoopRow, read_loops, read_records, run_names
from autophagy.runs.outcomes import read_outcomes
from autophagy.store import StageStore
from autophagy.store.storage import at_once

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["sweep", "run", "arm", "seed", "generation", "state", "why"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordedLoop:
    """One loop as it is recorded somewhere."""

    run: str
    experiment: Experiment
    records: list[GenerationRecord]
    sweep: str = ""
    arm: str | None = None  # None: the run's name less its seed
    labels: Mapping[str, str] | None = None
    state: str | None = None  # None: told by the records
    why: str = ""


def runs_frame(store: StageStore, names: Iterable[str] | None = None) -> pd.DataFrame:
    """Loops by the names of their run folders; for None all that have records and can be read.

    Raises:
        UserError: there is no such loop in the store, or its experiment.yaml cannot be read.
    """
    if names is None:
        return loops_frame(filter(None, at_once(partial(_loop_or_warning, store), run_names(store))))
    names = list(dict.fromkeys(names))
    loops = at_once(partial(_read_loop, store), names)
    missing = [name for name, loop in zip(names, loops, strict=True) if loop is None]
    if missing:
        raise UserError(f"run = {missing[0]}: no loop of this name in {store.uri}; see its folder runs/")
    return loops_frame(filter(None, loops))


def sweep_frame(store: StageStore, name: str) -> pd.DataFrame:
    """The loops of a sweep, as far as they have come, with its axes; a loop without a finished generation has no row.

    Raises:
        UserError: there is no such sweep in the store, or its loops.json cannot be read.
    """
    table = read_loops(store, name)
    if table is None:
        raise UserError(
            f"sweep = {name}: no {LOOPS} to be read in {store.uri}/runs/{name}; give the name of a sweep that was run, "
            "or run it again"
        )
    outcomes = read_outcomes(store, name)

    def loop(row: LoopRow) -> RecordedLoop | None:
        outcome = outcomes.get(row.run)
        ended = {"state": outcome.state, "why": outcome.why} if outcome else {}
        return _loop_or_warning(store, row.run, sweep=name, arm=row.arm, labels=row.labels, **ended)

    return loops_frame(filter(None, at_once(loop, table.loops)))


def _read_loop(store: StageStore, name: str, **told: Any) -> RecordedLoop | None:
    """A loop by its run folder; None if that holds none."""
    experiment = read_experiment(store, name)
    return None if experiment is None else RecordedLoop(name, experiment, read_records(store, name), **told)


def _loop_or_warning(store: StageStore, name: str, **told: Any) -> RecordedLoop | None:
    """A loop of many: one that cannot be read is said, and left out."""
    try:
        return _read_loop(store, name, **told)
    except UserError as error:
        logger.warning("left out: %s", error)
        return None


def loops_frame(loops: Iterable[RecordedLoop]) -> pd.DataFrame:
    """The frame of some loops; the same whatever order they come in."""
    import pandas as pd

    rows, fields, metrics, axes = [], dict[str, None](), set[str](), set[str]()
    for loop in loops:
        axes |= set(loop.labels or ())
        for row, own in _rows(loop):
            rows.append(row)
            fields |= dict.fromkeys(row)
            metrics |= own
    if not rows:
        return pd.DataFrame(columns=[*KEYS, *METRICS, "seconds"])
    extra = sorted(metrics - METRICS.keys(), key=_natural)
    others = sorted(fields.keys() - {*KEYS, *metrics, *METRICS, "seconds"})
    frame = pd.DataFrame(rows).reindex(columns=[*KEYS, *others, *METRICS, *extra, "seconds"])
    frame = frame.astype({key: float for key in [*METRICS, *extra, "seconds"]})
    frame = frame.sort_values(["sweep", "arm", "seed", "run", "generation"], ignore_index=True)
    frame.attrs["axes"] = sorted(axes)
    return frame


def _rows(loop: RecordedLoop) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """A row for each generation, and the metrics in it that are defined."""
    values = flatten(loop.experiment.settled().model_dump(mode="json"))
    labels = {axis: label for axis, label in (loop.labels or {}).items() if axis not in values}
    complete = len(loop.records) > loop.experiment.generations
    common = {
        "sweep": loop.sweep,
        "run": loop.run,
        "arm": re.sub(r"-seed\d+$", "", loop.run) if loop.arm is None else loop.arm,
        "state": loop.state or ("done" if complete else "running"),
        "why": loop.why,
        **labels,
        **values,
    }
    for record in loop.records:
        metrics = {key: value for key, value in record.metrics.items() if math.isfinite(value) and key != "generation"}
        seconds = math.fsum(record.seconds.values())
        yield {**common, "generation": record.generation, **metrics, "seconds": seconds}, set(metrics)


def _natural(key: str) -> list[str | int]:
    """Sorts share_2 before share_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]
