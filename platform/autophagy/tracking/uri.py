"""Which tracker a URI means."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from autophagy.common.errors import UserError
from autophagy.tracking.connection import SQLITE, sqlite_file
from autophagy.tracking.mlflow import MLflowTracker
from autophagy.tracking.tags import DEFAULT_EXPERIMENT
from autophagy.tracking.tracker import NullTracker, Tracker


def tracking_for(given: str | None, folder: str | None) -> str | None:
    """The tracking URI to use; None for none.

    Args:
        given: By the user: a URI, "none", or None for MLFLOW_TRACKING_URI, else the default.
        folder: Of a store on a disk: the default is a SQLite file in it. None: there is no default.
    """
    if given == "none":
        return None
    default = None if folder is None else f"{SQLITE}{folder}/mlflow.db"
    return given or os.environ.get("MLFLOW_TRACKING_URI") or default


def how_to_look(uri: str, experiment: str = DEFAULT_EXPERIMENT) -> str:
    """What to open or type to see an experiment: a link to the server, or the command that serves a database."""
    if not uri.startswith("http"):
        return f"mlflow ui --backend-store-uri {uri}"
    return f"{uri.rstrip('/')}, experiment {experiment}"


def make_tracker(
    uri: str | None, experiment: str = DEFAULT_EXPERIMENT, tags: Mapping[str, str] | None = None
) -> Tracker:
    """The tracker for a tracking URI: MLflow, or none for None. Experiment and tags are MLflow's.

    Raises:
        UserError: as `check_tracking_uri`, or the folder of a SQLite URI cannot be made.
    """
    if uri is None:
        return NullTracker()
    check_tracking_uri(uri)
    if file := sqlite_file(uri):
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"tracking_uri: {uri!r}: {error}; give a path that you can write") from error
    return MLflowTracker(uri, experiment, tags)


def check_tracking_uri(uri: str) -> None:
    """Raise a UserError if the URI is neither a tracking server nor a database; nothing is contacted."""
    if not re.match(r"(https?|sqlite|postgresql|mysql|mssql|databricks)(\+\w+)?://", uri):
        raise UserError(
            f"tracking_uri: {uri!r} is neither a tracking server nor a database; "
            "give http://HOST:PORT or sqlite:////ABSOLUTE/PATH/mlflow.db"
        )
