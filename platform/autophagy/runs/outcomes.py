"""What became of the loops of a sweep: `outcomes.json` in its run folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from autophagy.runs.folder import OUTCOMES, RunFolder
from autophagy.store import StageStore

State = Literal["done", "stopped", "failed", "running"]


@dataclass(frozen=True)
class Outcome:
    """What became of a loop."""

    state: State = "running"  # stopped: early, by a rule; running: not at its end yet
    generation: int = -1  # the last one that is finished
    why: str = ""
    fid: float | None = None  # of that generation

    @property
    def final(self) -> bool:
        """Whether the same sweep would not go on with it."""
        return self.state in ("done", "stopped")


def read_outcomes(store: StageStore, sweep: str) -> dict[str, Outcome]:
    """Outcomes by run; empty for a sweep that was never run."""
    return RunFolder(store, sweep).read_back(OUTCOMES, _decode) or {}


def _decode(data: bytes) -> dict[str, Outcome]:
    """Outcomes by run; what a newer version has besides is left out, and a state of its own is none to stay in."""
    saved = TypeAdapter(dict[str, dict[str, Any]]).validate_python(json.loads(data))
    for values in saved.values():
        if values.get("state") not in get_args(State):
            values["state"] = Outcome.state
    return TypeAdapter(dict[str, Outcome]).validate_python(saved)


def write_outcomes(store: StageStore, sweep: str, outcomes: Mapping[str, Outcome]) -> None:
    """Replace the outcomes of a sweep."""
    values = {run: dataclasses.asdict(outcome) for run, outcome in outcomes.items()}
    RunFolder(store, sweep).write(OUTCOMES, json.dumps(values, indent=1).encode())
