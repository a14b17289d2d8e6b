"""The tracking server."""

from __future__ import annotations

import uuid
from pathlib import Path

from autophagy.common.errors import UserError
from autophagy.common.seeds import digest
from autophagy.doctor.findings import Finding
from autophagy.doctor.machine import reachable, reason
from autophagy.tracking.mlflow import MLFLOW_ENVIRONMENT, MLflowTracker, mlflow_environment
from autophagy.tracking.tracker import RunInfo
from autophagy.tracking.uri import check_tracking_uri

# The tracking server


class TrackingProbe(MLflowTracker):
    """A run that is written as those of loops are, and deleted again."""

    def __init__(self, tracking_uri: str) -> None:
        super().__init__(tracking_uri, experiment="autophagy-doctor")
        name = uuid.uuid4().hex
        self._info = RunInfo(name, digest(name), {"check": True}, {}, {"source": "doctor", "digest": name})

    def write(self) -> None:
        """Write params, a metric and a file, read the metric, delete the run. Raises whatever MLflow raises."""
        # A loop would rather go on than wait; here a server that has just started gets its time.
        with mlflow_environment(MLFLOW_ENVIRONMENT | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}):
            client, run = self._open()
            try:
                client.log_metric(run.info.run_id, "check", 1.0)
                client.log_text(run.info.run_id, "written\n", "check.txt")
                if client.get_run(run.info.run_id).data.metrics != {"check": 1.0}:
                    raise RuntimeError("a metric that was logged is not there")
            finally:
                client.delete_run(run.info.run_id)


def check_tracking(uri: str | None) -> Finding:
    """Reach the tracking server or database, and write to it."""
    if uri is None:
        return Finding("note", "tracking", "none: numbers go to run folders alone")
    try:
        check_tracking_uri(uri)
    except UserError as error:
        return Finding("problem", "tracking", str(error))
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return Finding("ok", "tracking", f"{uri}: the first run makes it")
    if not reachable(uri):
        return Finding(
            "problem", "tracking", f"{uri}: nothing answers", "start `mlflow server` there, or mend the address"
        )
    try:
        TrackingProbe(uri).write()
    except Exception as error:  # whatever a server, a proxy or an artifact store raises
        remedy = (
            "see that MLflow runs there, may write its artifacts, and lets you in (MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or ~/.mlflow/credentials)"
        )
        return Finding("problem", "tracking", f"{uri}: {reason(error)}", remedy)
    return Finding("ok", "tracking", f"{uri}: a run was written, read and deleted")
