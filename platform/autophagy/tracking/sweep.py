"""A sweep in MLflow: an experiment of its own, one parent run with plan, table and pictures, a child run per loop."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from autophagy.common.seeds import digest
from autophagy.config.expand import PlannedLoop
from autophagy.config.sweep import Sweep
from autophagy.runs.outcomes import Outcome
from autophagy.tracking.connection import Connection
from autophagy.tracking.lineage import code_tags
from autophagy.tracking.mlflow import MLflowTracker
from autophagy.tracking.tags import ARM, GENERATION, LABEL, NAME, NOTE, PARENT, STATE, SWEEP, WHY
from autophagy.tracking.tracker import RunInfo

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_LONGEST = 1000  # characters of a tag
_PAGE = 1000
_LOGGER = logging.getLogger(__name__)


def loop_tags(sweep: Sweep, loop: PlannedLoop) -> dict[str, str]:
    """What the MLflow run of a loop is found and compared by."""
    return {SWEEP: sweep.name, ARM: loop.arm} | {LABEL + axis: text for axis, text in loop.labels.items()}


class SweepTracker:
    """The parent run. As with loops, a server that is away stops nothing: the same command logs what is missing."""

    def __init__(self, tracking_uri: str, sweep: Sweep, plan: str) -> None:
        self.sweep, self.plan = sweep, plan  # in words
        info = RunInfo(
            name=sweep.name,
            digest=digest({"sweep": sweep.name}),  # more axes or seeds go on in the same run
            params={},
            tags={SWEEP: sweep.name, **code_tags()},
            dataset={"source": sweep.base.data.source, "digest": digest(sweep.base.data.keyed())},
        )
        self._connection = Connection(tracking_uri, sweep.name, info)
        self.tracking_uri = self._connection.tracking_uri

    @property
    def run_id(self) -> str | None:
        """Id of the parent run; None while MLflow is away."""
        return self._connection.run_id

    def begin(self) -> bool:
        """Find or make the parent run, and log the configuration and the plan; whether MLflow took it."""
        note = self.sweep.question or f"Sweep over {', '.join(self.sweep.axes)}."
        values = json.dumps(self.sweep.model_dump(mode="json"), indent=1)
        files = {"sweep.json": values.encode(), "plan.txt": self.plan.encode()}

        def log(client: MlflowClient, run: Run) -> None:
            client.set_tag(run.info.run_id, NOTE, note)
            _log_files(client, run, files)

        return self._connection.attempt(log)

    def of_loop(self, tags: Mapping[str, str] | None = None) -> MLflowTracker:
        """A tracker for one of the loops; without a parent while MLflow is away."""
        parent = {} if self.run_id is None else {PARENT: self.run_id}
        return MLflowTracker(self.tracking_uri, self.sweep.name, {**(tags or {}), **parent})

    def missing(self, outcomes: Mapping[str, Outcome]) -> set[str]:
        """Loops at their ends that MLflow does not have to these; none while it is away.

        Args:
            outcomes: By run; those that are not final are not looked for.
        """
        found: set[str] = set()

        def look(client: MlflowClient, run: Run) -> None:
            children = [(child.data.tags.get(NAME, ""), child) for child in _children(client, run)]
            whole = {name for name, child in children if name in outcomes and _is_whole(child, outcomes[name])}
            ended = {name for name, outcome in outcomes.items() if outcome.final and outcome.generation >= 0}
            found.update(ended - whole)

        self._connection.attempt(look)
        return found

    def interrupt(self) -> None:
        """Say that the sweep was stopped, and its loops with it; given again, it goes on in the same runs."""
        self._connection.attempt(_kill)

    def end(self, outcomes: Mapping[str, Outcome], files: Mapping[str, bytes]) -> None:
        """Log what became of every loop, the table and the pictures, and close the parent run.

        FINISHED if all loops are done or were stopped on purpose, else FAILED.
        """
        if not self._connection.attempt(partial(_finish, outcomes=outcomes, files=files)):
            _LOGGER.warning("MLflow misses a part of this sweep; the same command again logs what is missing")


def _kill(client: MlflowClient, run: Run) -> None:
    client.set_terminated(run.info.run_id, "KILLED")
    for child in _children(client, run):  # their processes end with this one, and cannot say so themselves
        if child.info.status == "RUNNING":
            client.set_terminated(child.info.run_id, "KILLED")


def _finish(client: MlflowClient, run: Run, outcomes: Mapping[str, Outcome], files: Mapping[str, bytes]) -> None:
    for child in _children(client, run):
        outcome = outcomes.get(child.data.tags.get(NAME, ""), Outcome())
        for tag, value in ((STATE, outcome.state), (WHY, outcome.why)):
            if child.data.tags.get(tag, "") != value:
                client.set_tag(child.info.run_id, tag, value[:_LONGEST])
        if child.info.status == "RUNNING":  # its process has not come to say so
            client.set_terminated(child.info.run_id, "KILLED")
    _log_files(client, run, files)
    whole = all(outcome.final for outcome in outcomes.values())
    client.set_terminated(run.info.run_id, "FINISHED" if whole else "FAILED")


def _log_files(client: MlflowClient, run: Run, files: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        client.log_artifacts(run.info.run_id, folder)


def _children(client: MlflowClient, run: Run) -> list[Run]:
    children: list[Run] = []
    token = None
    while True:
        where = f"tags.`{PARENT}` = '{run.info.run_id}'"
        page = client.search_runs([run.info.experiment_id], where, max_results=_PAGE, page_token=token)
        children += page
        token = page.token
        if not token:
            return children


def _is_whole(run: Run, outcome: Outcome) -> bool:
    """Whether MLflow has a loop to its end."""
    if outcome.state == "done":
        return bool(run.info.status == "FINISHED")
    return bool(run.data.metrics.get(GENERATION) == outcome.generation)
