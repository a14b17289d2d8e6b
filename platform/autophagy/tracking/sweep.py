"""A sweep in MLflow: an experiment of its own, one parent run with plan, table and pictures, a child run per loop."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autophagy.common.seeds import digest
from autophagy.config.expand import Loop
from autophagy.config.sweep import Sweep
from autophagy.runs.outcomes import Outcome
from autophagy.tracking.lineage import code_tags
from autophagy.tracking.mlflow import MLflowTracker
from autophagy.tracking.tracker import RunInfo

if TYPE_CHECKING:
    from mlflow.entities import Run

_SWEEP, _ARM, _LABEL, _STATE, _WHY = (f"autophagy.{name}" for name in ("sweep", "arm", "label.", "state", "why"))
_PARENT, _NOTE = "mlflow.parentRunId", "mlflow.note.content"
_LONGEST = 1000  # characters of a tag
_PAGE = 1000
_LOGGER = logging.getLogger(__name__)


def child_tags(sweep: Sweep, parent_id: str | None, loop: Loop) -> dict[str, str]:
    """What the MLflow run of a loop is found and compared by; without a parent while MLflow is away."""
    tags = {_SWEEP: sweep.name, _ARM: loop.arm} | {_LABEL + axis: text for axis, text in loop.labels.items()}
    return tags if parent_id is None else tags | {_PARENT: parent_id}


class SweepTracker(MLflowTracker):
    """The parent run. As with loops, a server that is away stops nothing: the same command logs what is missing."""

    def __init__(self, tracking_uri: str, sweep: Sweep) -> None:
        super().__init__(tracking_uri, experiment=sweep.name)
        self.sweep = sweep

    def begin(self, plan: str) -> None:
        """Find or make the parent run, and log the configuration and the plan."""
        sweep = self.sweep
        values = sweep.model_dump(mode="json")
        self.start(
            RunInfo(
                name=sweep.name,
                digest=digest({"sweep": sweep.name}),  # more axes or seeds go on in the same run
                params={},
                tags={_SWEEP: sweep.name, **code_tags()},
                dataset={"source": sweep.base.data.source, "digest": digest(sweep.base.data.keyed())},
            )
        )
        note = sweep.question or f"Sweep over {', '.join(sweep.axes)}."
        self._attempt(lambda: self._log({"sweep.json": json.dumps(values, indent=1), "plan.txt": plan}, {_NOTE: note}))

    def missing(self, runs: Sequence[str]) -> set[str]:
        """Of runs that are done, those that MLflow does not have to their end; none while it is away."""
        found: set[str] = set()

        def look() -> None:
            names = {r.data.tags.get("autophagy.run") for r in self._children() if r.info.status == "FINISHED"}
            found.update(run for run in runs if run not in names)

        self._attempt(look)
        return found

    def interrupt(self) -> None:
        """Say that the sweep was stopped, and its loops with it; given again, it goes on in the same runs."""
        self._attempt(self._kill)

    def _kill(self) -> None:
        client, run = self._open()
        client.set_terminated(run.info.run_id, "KILLED")
        for child in self._children():  # their processes end with this one, and cannot say so themselves
            if child.info.status == "RUNNING":
                client.set_terminated(child.info.run_id, "KILLED")

    def end(self, outcomes: Mapping[str, Outcome], files: Mapping[str, bytes]) -> None:
        """Log what became of every loop the table and the pictures, and close the parent run.

        FINISHED if all loops are done or were stopped on purpose, else FAILED.
        """
        whole = all(outcome.final for outcome in outcomes.values())
        if not self._attempt(lambda: self._finish(outcomes, files, whole)):
            _LOGGER.warning("MLflow misses a part of this sweep; the same command again logs what is missing")

    def _finish(self, outcomes: Mapping[str, Outcome], files: Mapping[str, bytes], whole: bool) -> None:
        client, run = self._open()
        for child in self._children():
            outcome = outcomes.get(child.data.tags.get("autophagy.run", ""), Outcome())
            for tag, value in ((_STATE, outcome.state), (_WHY, outcome.why)):
                if child.data.tags.get(tag, "") != value:
                    client.set_tag(child.info.run_id, tag, value[:_LONGEST])
        self._log(files, {})
        client.set_terminated(run.info.run_id, "FINISHED" if whole else "FAILED")

    def _log(self, files: Mapping[str, bytes | str], tags: Mapping[str, str]) -> None:
        client, run = self._open()
        for tag, value in tags.items():
            client.set_tag(run.info.run_id, tag, value)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(content.encode() if isinstance(content, str) else content)
            client.log_artifacts(run.info.run_id, folder)

    def _children(self) -> list[Run]:
        client, run = self._open()
        children: list[Run] = []
        token = None
        while True:
            where = f"tags.`{_PARENT}` = '{run.info.run_id}'"
            page = client.search_runs([run.info.experiment_id], where, max_results=_PAGE, page_token=token)
            children += page
            token = page.token
            if not token:
                return children
