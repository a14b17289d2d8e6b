"""The tracking server or database."""

from __future__ import annotations

import uuid

from autophagy.common.errors import UserError
from autophagy.common.seeds import digest
from autophagy.doctor.findings import Finding
from autophagy.doctor.machine import reachable, reason
from autophagy.tracking.connection import Connection, mlflow_environment, sqlite_file
from autophagy.tracking.tracker import RunInfo
from autophagy.tracking.uri import check_tracking_uri

EXPERIMENT = "autophagy-doctor"


def write_a_run(tracking_uri: str) -> None:
    """Write a run as those of loops are, with params, a metric and a file; read the metric, and delete the run.

    Raises whatever MLflow raises.
    """
    name = uuid.uuid4().hex
    info = RunInfo(name, digest(name), {"check": True}, {}, {"source": "doctor", "digest": name})
    # A loop would rather go on than wait; here a server that has just started gets its time.
    with mlflow_environment(timeout=30):
        client, run = Connection(tracking_uri, EXPERIMENT, info).open()
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
    file = sqlite_file(uri)
    if file and not file.is_file():
        return Finding("ok", "tracking", f"{uri}: the first run makes it")
    if not reachable(uri):
        return Finding(
            "problem", "tracking", f"{uri}: nothing answers", "start `mlflow server` there, or mend the address"
        )
    try:
        write_a_run(uri)
    except Exception as error:  # whatever a server, a proxy or an artifact store raises
        remedy = (
            "see that MLflow runs there, may write its artifacts, and lets you in (MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or ~/.mlflow/credentials)"
        )
        return Finding("problem", "tracking", f"{uri}: {reason(error)}", remedy)
    return Finding("ok", "tracking", f"{uri}: a run was written, read and deleted")
