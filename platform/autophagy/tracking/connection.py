"""A run in MLflow, held on to while MLflow comes and goes."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from autophagy.common.errors import without_secrets
from autophagy.common.rights import create_private
from autophagy.tracking import tags
from autophagy.tracking.tracker import RunInfo

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SQLITE = "sqlite:///"
_PARAMS_A_BATCH, _TAGS_A_BATCH = 100, 100  # limits of one MLflow request
_PARAM_CHARACTERS, _TAG_CHARACTERS = 6000, 5000

T = TypeVar("T")
_LOGGER = logging.getLogger(__name__)


class Connection:
    """One MLflow run, found by its digest and name, or made; found again after MLflow was away."""

    def __init__(self, tracking_uri: str, experiment: str, info: RunInfo) -> None:
        """Name a run; nothing is contacted before the first use.

        Args:
            tracking_uri: As of `MLflowTracker`.
            experiment: Name of the MLflow experiment, made if it is missing.
            info: What the run is; its digest and name tell it from others.
        """
        self.tracking_uri, self.experiment, self.info = absolute(tracking_uri), experiment, info
        self.answers = True  # whether MLflow took what it was given last
        self._client: MlflowClient | None = None
        self._run: Run | None = None

    @property
    def run_id(self) -> str | None:
        """Id of the MLflow run; None while MLflow is away."""
        return None if self._run is None else self._run.info.run_id

    def attempt(self, action: Callable[[MlflowClient, Run], object] = lambda client, run: None) -> bool:
        """Do something with the run; whether MLflow took it. By default the run is only found or made.

        A loop outlives whatever a store, proxy or artifact back end raises: the first failure of several is a warning.
        """
        try:
            with mlflow_environment():
                action(*self.open())
        except Exception as error:
            self._run = None  # found again by the next call, or made again if it is gone
            if self.answers:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                _LOGGER.warning(
                    "MLflow at %s fails (%s); the loop goes on, what is missed is logged once it answers",
                    without_secrets(self.tracking_uri),
                    without_secrets(reason),
                )
            self.answers = False
            return False
        if not self.answers:
            _LOGGER.warning("MLflow at %s answers again", without_secrets(self.tracking_uri))
        self.answers = True
        return True

    def open(self) -> tuple[MlflowClient, Run]:
        """The client and the run, made on first use and after a failure. Raises whatever MLflow raises."""
        if self._client is None:
            self._client = make_client(self.tracking_uri)
        if self._run is None:
            experiment_id = _experiment_id(self._client, self.tracking_uri, self.experiment)
            self._run = _find_run(self._client, experiment_id, self.info)
            if self._run is None:
                first = {**_own_tags(self.info), tags.NOTE: _note(self.info)}
                self._run = self._client.create_run(experiment_id, tags=first, run_name=self.info.name)
            _describe(self._client, self._run, self.info)
        return self._client, self._run


@contextmanager
def mlflow_environment(timeout: int = 10) -> Iterator[None]:
    """Settings of MLflow within the block, where the user has none.

    MLflow retries for minutes by default: a loop would rather go on, and log again at its next generation.

    Args:
        timeout: Seconds that a server may take to answer a request.
    """
    settings = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout),
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    ours = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


def sqlite_file(tracking_uri: str | None) -> Path | None:
    """The file of a SQLite database; None for what is no such URI."""
    if tracking_uri is None or not tracking_uri.startswith(SQLITE):
        return None
    return Path(tracking_uri.removeprefix(SQLITE).partition("?")[0])


def absolute(tracking_uri: str) -> str:
    """A tracking URI that means the same wherever the process goes."""
    if sqlite_file(tracking_uri) is None:
        return tracking_uri
    return f"{SQLITE}{Path(tracking_uri.removeprefix(SQLITE)).absolute()}"


def make_client(tracking_uri: str) -> MlflowClient:
    """A client of MLflow; that of a SQLite file that is not there makes it, for us alone."""
    from mlflow import MlflowClient

    for chatty in ("mlflow", "alembic"):  # what they say about making tables is not for people
        logging.getLogger(chatty).setLevel(logging.WARNING)
    file = sqlite_file(tracking_uri)
    if file is None:
        return MlflowClient(tracking_uri)
    # The first client creates the tables, in seconds and without a lock of its own.
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        create_private(file)
        return MlflowClient(tracking_uri)
    finally:
        os.close(descriptor)


def chunks(items: list[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


def legal_key(name: str) -> str:
    """The name of a metric or a param with the characters that MLflow refuses replaced."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _experiment_id(client: MlflowClient, tracking_uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        file = sqlite_file(tracking_uri)
        location = None if file is None else (file.parent / "mlflow_artifacts").as_uri()
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another loop was faster
                raise
            found = client.get_experiment_by_name(name)
    return found.experiment_id


def _find_run(client: MlflowClient, experiment_id: str, info: RunInfo) -> Run | None:
    """The run with this digest and name, under way again unless FINISHED; the oldest of several."""
    found = client.search_runs(
        [experiment_id], f"tags.`{tags.DIGEST}` = '{info.digest}'", order_by=["attributes.start_time ASC"]
    )
    run = next((run for run in found if run.data.tags.get(tags.NAME) == info.name), None)
    if run is not None and run.info.status not in ("RUNNING", "FINISHED"):
        client.update_run(run.info.run_id, status="RUNNING")
    return run


def _describe(client: MlflowClient, run: Run, info: RunInfo) -> None:
    """Log the params, tags and dataset that the run does not have. (MLflow lets no param change.)"""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

    run_id = run.info.run_id
    params = [
        Param(legal_key(key), str(value)[:_PARAM_CHARACTERS])
        for key, value in info.params.items()
        if legal_key(key) not in run.data.params
    ]
    for chunk in chunks(params, _PARAMS_A_BATCH):
        client.log_batch(run_id, params=chunk, synchronous=True)
    missing = [RunTag(key, value) for key, value in _own_tags(info).items() if run.data.tags.get(key) != value]
    for some in chunks(missing, _TAGS_A_BATCH):
        client.log_batch(run_id, tags=some, synchronous=True)
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


def _own_tags(info: RunInfo) -> dict[str, str]:
    own = {tags.DIGEST: info.digest, tags.NAME: info.name, tags.SOURCE_NAME: "autophagy"}
    return {key: value[:_TAG_CHARACTERS] for key, value in {**info.tags, **own}.items()}


def _note(info: RunInfo) -> str:
    return f"Self-consuming loop `{info.name}` on `{info.dataset['source']}`; a step is a generation."
