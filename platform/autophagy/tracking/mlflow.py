"""A loop in MLflow: its generations, a summary, its pictures."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autophagy.common.records import GenerationRecord
from autophagy.runs.folder import RECORDS
from autophagy.tracking.connection import Connection, absolute, chunks, legal_key
from autophagy.tracking.tags import DEFAULT_EXPERIMENT, GENERATION, SECONDS
from autophagy.tracking.tracker import RunInfo

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_METRICS_A_BATCH = 1000  # limit of one MLflow request
_SUMMARISED = ("fid", "kid", "precision", "recall")
_LOGGER = logging.getLogger(__name__)


class MLflowTracker:
    """Logs a loop as one MLflow run: generation = step, configuration = params, real data = dataset input.

    The run is found by the loop's digest and name, and MLflow is asked which generations it has: a loop that
    goes on after a kill goes on in the same run, and no row is logged twice. A store that is away costs one
    warning and a few seconds a generation; what it missed is logged by the first later call that reaches it,
    in this process or when the same command runs again. (A database server without a tracking server in front
    is retried by MLflow itself, for up to 100 s.)

    During each call, and unless the user has set them, `MLFLOW_HTTP_REQUEST_MAX_RETRIES` is 1 and
    `MLFLOW_HTTP_REQUEST_TIMEOUT` 10 s, and MLflow prints no links and sends no telemetry. Nothing else that is
    global is read or changed: no active run, no `MLFLOW_RUN_ID`, no default tracking URI.

    Args:
        tracking_uri: `http://HOST:PORT` or a database, such as `sqlite:////ABSOLUTE/mlflow.db`; a relative
            SQLite path is taken from the current directory.
        experiment: name of the MLflow experiment, made if it is missing. With a SQLite file its artifacts go
            to the folder `mlflow_artifacts` beside it, else to where the server keeps them.
        tags: of every run besides its own; a sweep's loops have `mlflow.parentRunId` here.
    """

    def __init__(
        self, tracking_uri: str, experiment: str = DEFAULT_EXPERIMENT, tags: Mapping[str, str] | None = None
    ) -> None:
        self.tracking_uri, self.experiment, self.tags = absolute(tracking_uri), experiment, dict(tags or {})
        self._connection: Connection | None = None

    @property
    def run_id(self) -> str | None:
        """Id of the MLflow run: the `mlflow.parentRunId` tag of nested runs. None while MLflow is away."""
        return None if self._connection is None else self._connection.run_id

    @property
    def answers(self) -> bool:
        """Whether MLflow took what it was given last."""
        return self._connection is not None and self._connection.answers

    def start(self, run: RunInfo) -> None:
        """Find the run of this loop or make it, with params, tags and dataset."""
        info = dataclasses.replace(run, tags={**run.tags, **self.tags})
        self._connection = Connection(self.tracking_uri, self.experiment, info)
        self._connection.attempt()

    def log(self, records: Sequence[GenerationRecord]) -> None:
        """Log the generations that MLflow does not have yet; `records` are all so far, oldest first."""
        self._attempt(partial(_send, records=records))

    def finish(self, records: Sequence[GenerationRecord], pictures: Sequence[Path], complete: bool) -> None:
        """Log what is missing, a summary, records and pictures; FINISHED, or KILLED if not complete."""
        if not self._attempt(partial(_close, records=records, pictures=pictures, complete=complete)):
            _LOGGER.warning("MLflow misses a part of this run; the same command again logs what is missing")

    def _attempt(self, action: Callable[[MlflowClient, Run], object]) -> bool:
        assert self._connection is not None, "start() comes first"
        return self._connection.attempt(action)


def _send(client: MlflowClient, run: Run, records: Sequence[GenerationRecord]) -> bool:
    """Log the generations that MLflow does not have; whether there were any."""
    logged = {metric.step for metric in client.get_metric_history(run.info.run_id, GENERATION)}
    rows: list[Metric] = []
    seconds = 0.0
    for record in records:
        seconds += sum(record.seconds.values())
        if record.generation not in logged:
            rows += _metrics(_values(record), _timestamp(run, seconds), record.generation)
    _log_metrics(client, run, rows)
    return bool(rows)


def _close(
    client: MlflowClient, run: Run, records: Sequence[GenerationRecord], pictures: Sequence[Path], complete: bool
) -> None:
    if not _send(client, run, records) and run.info.status == "FINISHED":
        return
    run_id = run.info.run_id
    if complete and records:
        seconds = sum(sum(record.seconds.values()) for record in records)
        rows = _metrics(_summary(records), _timestamp(run, seconds), records[-1].generation)
        _log_metrics(client, run, rows)
    lines = "".join(json.dumps(record.to_json()) + "\n" for record in records)
    client.log_text(run_id, lines, RECORDS)
    for picture in pictures:
        client.log_artifact(run_id, str(picture), "pictures")
    client.set_terminated(run_id, "FINISHED" if complete else "KILLED")


def _values(record: GenerationRecord) -> dict[str, float]:
    """What is logged of a generation; `generation` is last: MLflow has it only once it has the others."""
    seconds = {f"{SECONDS}{stage}": value for stage, value in record.seconds.items()}
    return {**record.metrics, **seconds, GENERATION: record.generation}


def _summary(records: Sequence[GenerationRecord]) -> dict[str, float]:
    """Of the main metrics the best and the last value after generation 0, and the area under the whole curve."""
    from autophagy.metrics import METRICS

    summary: dict[str, float] = {}
    for key in _SUMMARISED:
        curve = [record.metrics.get(key, math.nan) for record in records]
        values = [value for value in curve[1:] if math.isfinite(value)]
        if values:
            summary[f"summary/best_{key}"] = max(values) if METRICS[key].higher_is_better else min(values)
            summary[f"summary/last_{key}"] = curve[-1]
            summary[f"summary/area_{key}"] = float(np.trapezoid(curve))
    return summary


def _timestamp(run: Run, seconds: float) -> int:
    """Start of the run plus what the loop has cost so far, in milliseconds.

    The same in every process: a request whose answer was lost and its repetition are one row to MLflow. And
    rows that are replayed together still have a time axis.
    """
    return run.info.start_time + round(1000 * seconds)


def _metrics(values: Mapping[str, float], timestamp: int, step: int) -> list[Metric]:
    """MLflow metrics of the finite values; timestamp in milliseconds."""
    from mlflow.entities import Metric

    finite = {legal_key(key): float(value) for key, value in values.items() if math.isfinite(value)}
    return [Metric(key, value, timestamp, step) for key, value in finite.items()]


def _log_metrics(client: MlflowClient, run: Run, rows: list[Metric]) -> None:
    for chunk in chunks(rows, _METRICS_A_BATCH):
        client.log_batch(run.info.run_id, metrics=chunk, synchronous=True)
