"""What was recorded, as a pandas frame: a row for each loop and generation, from run folders or from MLflow.

Columns: `sweep` ("" if none), `run`, `arm` (loops that differ in nothing but the seed share one), `seed`, `generation`,
`state` (done, stopped: ended early on purpose, failed, running), `why`; every field of the experiment by its dotted
name and, beside these, the axes of the sweep that are no such field (labels, as text); every metric under its key, all
of `METRICS` among them, NaN where undefined; and `seconds`, the sum over the stages of that generation. The names of
the axes are in `frame.attrs["axes"]`.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel

from autophagy.config import Experiment, flatten, parse
from autophagy.loop import RECORDS, read_records
from autophagy.metrics import METRICS
from autophagy.outcomes import read_outcomes
from autophagy.records import GenerationRecord, UserError
from autophagy.run_files import read_back, read_experiment
from autophagy.storage import at_once
from autophagy.store import StageStore
from autophagy.tracking import check_tracking_uri, mlflow_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LOOPS = "loops.json"  # in the run folder of a sweep
KEYS = ["sweep", "run", "arm", "seed", "generation", "state", "why"]
History = dict[str, dict[int, float]]  # metric -> generation -> value
_LABEL = "autophagy.label."
_REQUESTS_AT_A_TIME = 8
_RUNS_A_QUERY = 10_000  # a database takes only so many values in one
_MOST_GENERATIONS = 10_001
_SQLITE = "sqlite:///"
_CONSTANTS = {str(constant): constant for constant in (None, True, False)}
_MLFLOW_ENVIRONMENT = {  # a server that is away is reported within seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


logger = logging.getLogger(__name__)


class PlannedLoop(BaseModel):
    """One loop of a sweep as `loops.json` has it."""

    run: str
    arm: str
    labels: dict[str, str]


class LoopTable(BaseModel):
    """`loops.json`: what a sweep is about, and its loops."""

    question: str = ""
    axes: list[str] = []
    loops: list[PlannedLoop]


@dataclass(frozen=True)
class Loop:
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
        return loops_frame(filter(None, at_once(partial(_loop_or_warning, store), store.run_names())))
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

    def loop(planned: PlannedLoop) -> Loop | None:
        outcome = outcomes.get(planned.run)
        told = {"sweep": name, "arm": planned.arm, "labels": planned.labels}
        ended = {"state": outcome.state, "why": outcome.why} if outcome else {}
        return _loop_or_warning(store, planned.run, **told, **ended)

    return loops_frame(filter(None, at_once(loop, table.loops)))


def read_loops(store: StageStore, sweep: str) -> LoopTable | None:
    """The loops that a sweep has planned; None if there is no such sweep, or its loops.json is damaged."""
    return read_back(store, sweep, LOOPS, lambda data: LoopTable.model_validate(json.loads(data)))


def mlflow_frame(tracking_uri: str, experiment: str) -> pd.DataFrame:
    """The loops of an MLflow experiment: the frame of the run folders, from MLflow alone.

    Of several MLflow runs of one name the latest configuration counts.

    Raises:
        UserError: MLflow cannot be reached, or has no such experiment.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    check_tracking_uri(tracking_uri)
    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if tracking_uri.startswith(_SQLITE) and not Path(tracking_uri.removeprefix(_SQLITE)).is_file():
        raise UserError(f"tracking_uri = {tracking_uri}: there is no such file; give the database of an earlier run")
    try:
        with mlflow_environment(_MLFLOW_ENVIRONMENT):
            client = MlflowClient(tracking_uri)
            runs = _tracked_runs(client, experiment)
            return loops_frame(map(_tracked_loop, runs, _tracked_records(client, runs)))
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"tracking_uri = {tracking_uri}: {reason}; check that MLflow runs there") from error


def _read_loop(store: StageStore, name: str, **told: Any) -> Loop | None:
    """A loop by its run folder; None if that holds none."""
    experiment = read_experiment(store, name)
    return None if experiment is None else Loop(name, experiment, read_records(name, store), **told)


def _loop_or_warning(store: StageStore, name: str, **told: Any) -> Loop | None:
    """A loop of many: one that cannot be read is said, and left out."""
    try:
        return _read_loop(store, name, **told)
    except UserError as error:
        logger.warning("left out: %s", error)
        return None


def _tracked_runs(client: MlflowClient, experiment: str) -> list[Run]:
    """The runs that are loops, one for each name."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        names = ", ".join(sorted(known.name for known in client.search_experiments()))
        raise UserError(f"experiment = {experiment}: MLflow has no experiment of this name; there are: {names}")
    search = partial(client.search_runs, [found.experiment_id], order_by=["attributes.start_time ASC"])
    page = search()
    runs = list(page)
    while page.token:
        page = search(page_token=page.token)
        runs += page
    loops: dict[tuple[str, str], Run] = {}
    for run in runs:
        tags = run.data.tags
        if "autophagy.run" in tags and "data.source" in run.data.params:
            loops.setdefault((tags["autophagy.run"], tags.get("autophagy.digest", "")), run)
    return list({name: run for (name, _), run in loops.items()}.values())


def _tracked_loop(run: Run, records: list[GenerationRecord]) -> Loop:
    """A loop by its MLflow run."""
    tags = run.data.tags
    return Loop(
        tags["autophagy.run"],
        parse(nested(run.data.params)),
        records,
        tags.get("autophagy.sweep", ""),
        tags.get("autophagy.arm"),
        {key.removeprefix(_LABEL): value for key, value in tags.items() if key.startswith(_LABEL)},
        tags.get("autophagy.state"),
        tags.get("autophagy.why", ""),
    )


def _tracked_records(client: MlflowClient, runs: Sequence[Run]) -> Iterable[list[GenerationRecord]]:
    """The generations of every run that MLflow has in full, with as few requests as it allows.

    MLflow's client asks for one metric of one run at a time, for which SQLite walks through that metric of all runs:
    quadratic. The database behind it gives a metric of all runs at once; a server does not.
    """
    bulk = getattr(client._tracking_client.store, "get_metric_history_bulk", None)
    if bulk is not None:
        return _database_records(bulk, runs)
    return at_once(partial(served_records, client), runs, _REQUESTS_AT_A_TIME)


def _database_records(bulk: Callable[..., list[Any]], runs: Sequence[Run]) -> Iterator[list[GenerationRecord]]:
    """The records of runs, a request for each metric."""
    histories: dict[str, History] = {run.info.run_id: {} for run in runs}
    for key in sorted({key for run in runs for key in run.data.metrics if _is_of_a_generation(key)}):
        for start in range(0, len(runs), _RUNS_A_QUERY):
            ids = [run.info.run_id for run in runs[start : start + _RUNS_A_QUERY]]
            for metric in bulk(ids, key, max_results=len(ids) * _MOST_GENERATIONS):
                histories[metric.run_id].setdefault(key, {})[metric.step] = metric.value
    return map(_records, histories.values())


def served_records(client: MlflowClient, run: Run) -> list[GenerationRecord]:
    """The records of a run: from its `records.jsonl` if that is there and up to date, else a request per metric."""
    with suppress(Exception), TemporaryDirectory() as folder:  # a run under way has none; or no way to the artifacts
        path = client.download_artifacts(run.info.run_id, RECORDS, folder)
        records = [GenerationRecord.from_json(json.loads(line)) for line in Path(path).read_text().splitlines()]
        if records and records[-1].generation == run.data.metrics.get("generation"):
            return records
    keys = filter(_is_of_a_generation, run.data.metrics)
    return _records({key: {m.step: m.value for m in client.get_metric_history(run.info.run_id, key)} for key in keys})


def _is_of_a_generation(key: str) -> bool:
    """Whether a metric has a value for each generation; others, such as summary/..., sum a loop up."""
    return "/" not in key or key.startswith("seconds/")


def _records(values: History) -> list[GenerationRecord]:
    """Records from the histories of a run's metrics."""
    records = []
    for generation in sorted(values.get("generation", ())):  # which is logged last
        row = {key: steps[generation] for key, steps in values.items() if generation in steps}
        seconds = {key.removeprefix("seconds/"): row.pop(key) for key in list(row) if key.startswith("seconds/")}
        records.append(GenerationRecord(generation, row, {}, seconds))
    return records


def nested(params: Mapping[str, str]) -> dict[str, Any]:
    """Values by section from MLflow's params, which are `str` of what `flatten` gives; pydantic reads numbers."""
    values: dict[str, Any] = {}
    for name, text in params.items():
        *sections, field = name.split(".")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
        section[field] = json.loads(text) if text.startswith("[") else _CONSTANTS.get(text, text)
    return values


def loops_frame(loops: Iterable[Loop]) -> pd.DataFrame:
    """The frame of some loops; the same whatever order they come in."""
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


def _rows(loop: Loop) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """A row for each generation, and the metrics in it that are defined."""
    values = flatten(loop.experiment.model_dump(mode="json"))
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
