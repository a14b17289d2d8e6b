"""Loops read back from MLflow as a frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from autophagy.common.errors import UserError
from autophagy.common.records import GenerationRecord
from autophagy.config import parse
from autophagy.runs.folder import RECORDS
from autophagy.runs.frames import RecordedLoop, loops_frame
from autophagy.store.storage import at_once
from autophagy.tracking import tags
from autophagy.tracking.connection import make_client, mlflow_environment, sqlite_file
from autophagy.tracking.uri import check_tracking_uri

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

History = dict[str, dict[int, float]]  # metric -> generation -> value
_REQUESTS_AT_A_TIME = 8
_RUNS_A_QUERY = 10_000  # a database takes only so many values in one
_MOST_GENERATIONS = 10_001
_CONSTANTS = {str(constant): constant for constant in (None, True, False)}
_PATIENCE_SECONDS = 120  # for a page of a thousand runs


def mlflow_frame(tracking_uri: str, experiment: str) -> pd.DataFrame:
    """The loops of an MLflow experiment: the frame of the run folders, from MLflow alone.

    Of several MLflow runs of one name the latest configuration counts.

    Raises:
        UserError: MLflow cannot be reached, or has no such experiment.
    """
    from mlflow.exceptions import MlflowException

    check_tracking_uri(tracking_uri)
    file = sqlite_file(tracking_uri)
    if file and not file.is_file():
        raise UserError(f"tracking_uri = {tracking_uri}: there is no such file; give the database of an earlier run")
    try:
        with mlflow_environment(_PATIENCE_SECONDS):
            client = make_client(tracking_uri)
            runs = _tracked_runs(client, experiment)
            return loops_frame(map(_tracked_loop, runs, _tracked_records(client, runs)))
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"tracking_uri = {tracking_uri}: {reason}; check that MLflow runs there") from error


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
        told = run.data.tags
        if tags.NAME in told and "data.source" in run.data.params:
            loops.setdefault((told[tags.NAME], told.get(tags.DIGEST, "")), run)
    return list({name: run for (name, _), run in loops.items()}.values())


def _tracked_loop(run: Run, records: list[GenerationRecord]) -> RecordedLoop:
    """A loop by its MLflow run."""
    told = run.data.tags
    return RecordedLoop(
        told[tags.NAME],
        parse(nested(run.data.params)),
        records,
        told.get(tags.SWEEP, ""),
        told.get(tags.ARM),
        {key.removeprefix(tags.LABEL): value for key, value in told.items() if key.startswith(tags.LABEL)},
        told.get(tags.STATE),
        told.get(tags.WHY, ""),
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
        if records and records[-1].generation == run.data.metrics.get(tags.GENERATION):
            return records
    keys = filter(_is_of_a_generation, run.data.metrics)
    return _records({key: {m.step: m.value for m in client.get_metric_history(run.info.run_id, key)} for key in keys})


def _is_of_a_generation(key: str) -> bool:
    """Whether a metric has a value for each generation; others, such as summary/..., sum a loop up."""
    return "/" not in key or key.startswith(tags.SECONDS)


def _records(values: History) -> list[GenerationRecord]:
    """Records from the histories of a run's metrics."""
    records = []
    for generation in sorted(values.get(tags.GENERATION, ())):  # which is logged last
        row = {key: steps[generation] for key, steps in values.items() if generation in steps}
        seconds = {key.removeprefix(tags.SECONDS): row.pop(key) for key in list(row) if key.startswith(tags.SECONDS)}
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
