"""Who sees what trials report: ends hopeless points, enters how each has ended, and ends all where all fail alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from autophagy.common.errors import without_secrets
from autophagy.config.expand import run_name
from autophagy.runs.folder import ERROR, RunFolder
from autophagy.runs.outcomes import Outcome, State
from autophagy.sweeps.ledger import Ledger
from autophagy.sweeps.points import point_of
from autophagy.sweeps.progress import SweepProgress
from autophagy.sweeps.stopping import why_stop

BREAKER = 3  # trials that fail alike before any stage succeeds: the others would too


class Referee(tune.Stopper):
    """Sees what every loop reports; decides when a point should end early, and when all should.

    With one loop of a point, the whole point is stopped: those of its seeds that come after it do not run.
    """

    def __init__(self, ledger: Ledger, progress: SweepProgress) -> None:
        self.ledger, self.progress = ledger, progress
        self.stops: dict[str, str] = {}  # run -> why it was stopped
        self.failing: dict[str, str] = {}  # run -> why, since the last stage that was computed
        self.broken = ""  # why all loops were ended

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as the ledger's

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a point should end after the generation that one of its loops reports."""
        loop, generation = self.ledger.loops[result["run"]], result["generation"]
        curve = self.ledger.curves[loop.run]
        if generation not in curve:
            curve[generation] = {name: value for name, value in result.items() if isinstance(value, int | float)}
            self.progress.generation(loop, generation, curve[generation])
            if generation == loop.experiment.generations:
                self._end(loop.run, "done")
        if result["computed"]:
            self.failing.clear()
        history = [curve[k] for k in sorted(curve) if k <= generation]
        why = why_stop(self.ledger.sweep.stopping, loop.experiment.generations, history)
        if why:
            self.stops[loop.run] = why
        return bool(why)

    def stop_all(self) -> bool:
        """Whether the circuit is broken."""
        return bool(self.broken)

    def left(self, runs: Sequence[str]) -> list[str]:
        """Those of some loops that are not at their ends."""
        return [run for run in runs if self.ledger.loops[run].experiment.generations not in self.ledger.curves[run]]

    def failed(self, left: Sequence[str], why: str, *, again: bool, lost: bool) -> None:
        """A trial has failed, for the last time or not.

        Args:
            left: What is left of its loops; it was at the first of these.
            why: The error.
            again: It is tried again.
            lost: It has failed with its process, perhaps with many others.
        """
        cause = re.sub(r"[0-9a-f]{6,}|\d+|/\S+", "#", why)
        if not lost:
            self.failing[left[0]] = cause
        if again:
            self.progress.retried(self.ledger.loops[left[0]], why)
        else:
            for run in left:
                self._end(run, "failed", why)
        alike = [other for other, known in self.failing.items() if known == cause]
        if len(alike) >= BREAKER:
            self.broken = f"{len(alike)} loops in a row failed alike: {why}"

    def ended(self, left: Sequence[str]) -> None:
        """A trial has ended without an error, by a rule or because all were ended, with these of its loops left."""
        stopped = next((run for run in left if run in self.stops), None)
        for run in left:
            if run in self.stops:
                self._end(run, "stopped", self.stops[run])
            elif stopped:
                self._end(run, "stopped", f"with {stopped} of the same point: {self.stops[stopped]}")
            elif not self.broken:
                self._end(run, "stopped", "successive halving: FID is not among the best at this generation")

    def _end(self, run: str, state: State, why: str = "") -> None:
        curve = self.ledger.curves[run]
        last = max(curve, default=-1)
        outcome = Outcome(state, last, why, curve[last].get("fid") if curve else None)
        self.ledger.outcomes[run] = outcome
        self.progress.ended(self.ledger.loops[run], outcome)


class Reporter(tune.Callback):
    """Tells the referee how trials end; keeps the whole error of a failed one as error.txt in its run folders."""

    def __init__(self, referee: Referee) -> None:
        self.referee, self.ledger = referee, referee.ledger

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """A loop that came further may fail as often again: on spot machines a long one loses many processes."""
        if result.get("computed"):
            trial.max_failures = trial.num_failures + self.ledger.sweep.max_retries

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has ended without an error."""
        self.referee.ended(self._left(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has failed for the last time."""
        self._failed(trial, again=False)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has failed and will be tried again."""
        self._failed(trial, again=True)

    def _failed(self, trial: Trial, again: bool) -> None:
        if not (left := self._left(trial)):  # it was lost after all was done
            return
        text, lost = latest_error(trial)
        for run in left[:1] if again else left:
            RunFolder(self.ledger.store, run).write(ERROR, text.encode())
        self.referee.failed(left, last_line(text), again=again, lost=lost)

    def _left(self, trial: Trial) -> list[str]:
        point = point_of(trial.config)
        return self.referee.left([run_name(self.ledger.sweep.name, point["labels"], seed) for seed in point["seeds"]])


def latest_error(trial: Trial) -> tuple[str, bool]:
    """What a trial has failed with, and whether it is that its process was lost.

    It is read from the driver's own file: `Trial.get_error` reads copies that Tune makes of it now and then.
    """
    failures = Path(trial.error_file).read_text()
    text = re.split(r"^Failure # .*$", failures, flags=re.MULTILINE)[-1].strip()
    # An error of the loop is a traceback; that its actor died, or cannot be reached, Ray says in a sentence.
    return without_secrets(text), text.startswith("The actor ")


def last_line(error: str) -> str:
    """What was raised, from the text of a traceback."""
    return [line.strip() for line in error.splitlines() if line.strip()][-1]
