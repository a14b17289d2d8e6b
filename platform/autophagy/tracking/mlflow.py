"""Where a loop's numbers go besides its run folder: nowhere, or to MLflow, which may be away for a while."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autophagy.common.errors import without_secrets
from autophagy.common.records import GenerationRecord
from autophagy.common.rights import create_private
from autophagy.tracking.tracker import RunInfo

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

EXPERIMENT = "autophagy"  # the MLflow experiment of loops outside a sweep
_LOGGER = logging.getLogger(__name__)
_DIGEST_TAG, _NAME_TAG = "autophagy.digest", "autophagy.run"  # together they name a run, in every process
_METRICS_A_BATCH, _PARAMS_A_BATCH, _TAGS_A_BATCH = 1000, 100, 100  # limits of one MLflow request
_PARAM_CHARACTERS, _TAG_CHARACTERS = 6000, 5000
_SUMMARISED = ("fid", "kid", "precision", "recall")
SQLITE = "sqlite:///"
# MLflow retries for minutes by default; a loop would rather go on and log again at its next generation.
MLFLOW_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


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

    def __init__(self, tracking_uri: str, experiment: str = EXPERIMENT, tags: Mapping[str, str] | None = None) -> None:
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self._extra_tags = dict(tags or {})
        self._folder: Path | None = None  # of a SQLite file
        if tracking_uri.startswith(SQLITE):
            path = Path(tracking_uri.removeprefix(SQLITE)).absolute()
            self.tracking_uri, self._folder = f"{SQLITE}{path}", path.parent
        self._info: RunInfo | None = None
        self._client: MlflowClient | None = None
        self._run: Run | None = None
        self._answers = True

    @property
    def run_id(self) -> str | None:
        """Id of the MLflow run: the `mlflow.parentRunId` tag of nested runs. None while MLflow is away."""
        return None if self._run is None else self._run.info.run_id

    def start(self, run: RunInfo) -> None:
        """Find the run of this loop or make it, with params, tags and dataset."""
        self._info, self._run = dataclasses.replace(run, tags={**run.tags, **self._extra_tags}), None
        self._attempt(self._open)

    def log(self, records: Sequence[GenerationRecord]) -> None:
        """Log the generations that MLflow does not have yet; `records` are all so far, oldest first."""
        self._attempt(lambda: self._send(records))

    def finish(self, records: Sequence[GenerationRecord], pictures: Sequence[Path], complete: bool) -> None:
        """Log what is missing, a summary, records and pictures; FINISHED, or KILLED if not complete."""
        if not self._attempt(lambda: self._close(records, pictures, complete)):
            _LOGGER.warning("MLflow misses a part of this run; the same command again logs what is missing")

    def _attempt(self, action: Callable[[], object]) -> bool:
        """Whether MLflow took it: a loop outlives whatever a store, proxy or artifact back end raises."""
        try:
            with mlflow_environment(MLFLOW_ENVIRONMENT):
                action()
        except Exception as error:
            self._run = None  # found again by the next call, or made again if it is gone
            if self._answers:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                _LOGGER.warning(
                    "MLflow at %s fails (%s); the loop goes on, what is missed is logged once it answers",
                    without_secrets(self.tracking_uri),
                    without_secrets(reason),
                )
            self._answers = False
            return False
        if not self._answers:
            _LOGGER.warning("MLflow at %s answers again", without_secrets(self.tracking_uri))
        self._answers = True
        return True

    def _open(self) -> tuple[MlflowClient, Run]:
        """The client and the run of this loop, made on first use and after a failure."""
        if self._client is None:
            self._client = self._connect()
        if self._run is None:
            assert self._info is not None, "start() comes first"
            experiment_id = self._experiment_id(self._client)
            self._run = _find_run(self._client, experiment_id, self._info)
            if self._run is None:
                tags = {**_tags(self._info), "mlflow.note.content": _note(self._info)}
                self._run = self._client.create_run(experiment_id, tags=tags, run_name=self._info.name)
            _describe(self._client, self._run, self._info)
        return self._client, self._run

    def _connect(self) -> MlflowClient:
        from mlflow import MlflowClient

        for chatty in ("mlflow", "alembic"):  # what they say about making tables is not for people
            logging.getLogger(chatty).setLevel(logging.WARNING)
        if self._folder is None:
            return MlflowClient(self.tracking_uri)
        # The first client creates the tables, in seconds and without a lock of its own.
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            create_private(Path(self.tracking_uri.removeprefix(SQLITE).partition("?")[0]))
            return MlflowClient(self.tracking_uri)
        finally:
            os.close(descriptor)

    def _experiment_id(self, client: MlflowClient) -> str:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            location = None if self._folder is None else (self._folder / "mlflow_artifacts").as_uri()
            try:
                return client.create_experiment(self.experiment, artifact_location=location)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another loop was faster
                    raise
                found = client.get_experiment_by_name(self.experiment)
        return found.experiment_id

    def _send(self, records: Sequence[GenerationRecord]) -> bool:
        """Log the generations that MLflow does not have; whether there were any."""
        client, run = self._open()
        logged = {metric.step for metric in client.get_metric_history(run.info.run_id, "generation")}
        rows: list[Metric] = []
        seconds = 0.0
        for record in records:
            seconds += sum(record.seconds.values())
            if record.generation not in logged:
                rows += _metrics(_values(record), _timestamp(run, seconds), record.generation)
        _log_metrics(client, run, rows)
        return bool(rows)

    def _close(self, records: Sequence[GenerationRecord], pictures: Sequence[Path], complete: bool) -> None:
        client, run = self._open()
        if not self._send(records) and run.info.status == "FINISHED":
            return
        run_id = run.info.run_id
        if complete and records:
            seconds = sum(sum(record.seconds.values()) for record in records)
            rows = _metrics(_summary(records), _timestamp(run, seconds), records[-1].generation)
            _log_metrics(client, run, rows)
        lines = "".join(json.dumps(record.to_json()) + "\n" for record in records)
        client.log_text(run_id, lines, "records.jsonl")
        for picture in pictures:
            client.log_artifact(run_id, str(picture), "pictures")
        client.set_terminated(run_id, "FINISHED" if complete else "KILLED")


def _find_run(client: MlflowClient, experiment_id: str, info: RunInfo) -> Run | None:
    """The run with this digest and name, under way again unless FINISHED; the oldest of several."""
    found = client.search_runs(
        [experiment_id], f"tags.`{_DIGEST_TAG}` = '{info.digest}'", order_by=["attributes.start_time ASC"]
    )
    run = next((run for run in found if run.data.tags.get(_NAME_TAG) == info.name), None)
    if run is not None and run.info.status not in ("RUNNING", "FINISHED"):
        client.update_run(run.info.run_id, status="RUNNING")
    return run


def _describe(client: MlflowClient, run: Run, info: RunInfo) -> None:
    """Log the params, tags and dataset that the run does not have. (MLflow lets no param change.)"""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

    run_id = run.info.run_id
    params = [
        Param(_key(key), str(value)[:_PARAM_CHARACTERS])
        for key, value in info.params.items()
        if _key(key) not in run.data.params
    ]
    for chunk in _chunks(params, _PARAMS_A_BATCH):
        client.log_batch(run_id, params=chunk, synchronous=True)
    tags = [RunTag(key, value) for key, value in _tags(info).items() if run.data.tags.get(key) != value]
    for chunk in _chunks(tags, _TAGS_A_BATCH):
        client.log_batch(run_id, tags=chunk, synchronous=True)
    if not run.inputs.dataset_inputs:
        source, digest = str(info.dataset["source"]), str(info.dataset["digest"])
        profile = {key: value for key, value in info.dataset.items() if key not in ("source", "digest")}
        dataset = Dataset(
            name=source[:500],
            digest=digest[:36],
            source_type=source.partition(":")[0],
            source=json.dumps({"uri": source}),
            profile=json.dumps(profile),
        )
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _tags(info: RunInfo) -> dict[str, str]:
    own = {_DIGEST_TAG: info.digest, _NAME_TAG: info.name, "mlflow.source.name": "autophagy"}
    return {key: value[:_TAG_CHARACTERS] for key, value in {**info.tags, **own}.items()}


def _note(info: RunInfo) -> str:
    return f"Self-consuming loop `{info.name}` on `{info.dataset['source']}`; a step is a generation."


def _values(record: GenerationRecord) -> dict[str, float]:
    """What is logged of a generation; `generation` is last: MLflow has it only once it has the others."""
    seconds = {f"seconds/{stage}": value for stage, value in record.seconds.items()}
    return {**record.metrics, **seconds, "generation": record.generation}


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

    finite = {_key(key): float(value) for key, value in values.items() if math.isfinite(value)}
    return [Metric(key, value, timestamp, step) for key, value in finite.items()]


def _log_metrics(client: MlflowClient, run: Run, rows: list[Metric]) -> None:
    for chunk in _chunks(rows, _METRICS_A_BATCH):
        client.log_batch(run.info.run_id, metrics=chunk, synchronous=True)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _key(name: str) -> str:
    """`name` with the characters that MLflow refuses in a key replaced."""
    return re.sub(r"[^\w\-. :/]", "_", name)


@contextmanager
def mlflow_environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Settings of MLflow, for the time of one call, where the user has none."""
    ours = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)
