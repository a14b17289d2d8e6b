"""What a person sees of a running sweep: one live bar, one line for each loop that ends."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from autophagy.outcomes import Outcome
from autophagy.printing import say
from autophagy.sweep_config import Loop


class SweepProgress:
    """Is told how a sweep goes, and shows nothing."""

    def begin(self, num_loops: int, num_left: int, num_generations: int) -> None:
        """So many loops there are, so many are left to run, and they have so many generations."""

    def shared(self, done: int, count: int) -> None:
        """How many of the generations 0 that loops share are there."""

    def generation(self, loop: Loop, generation: int, metrics: Mapping[str, float]) -> None:
        """A generation of a loop is finished."""

    def retried(self, loop: Loop, why: str) -> None:
        """A loop has failed and is tried again."""

    def ended(self, loop: Loop, outcome: Outcome) -> None:
        """A loop is at its end, or will not get there."""

    def end(self) -> None:
        """No more is to come."""


class ConsoleSweep(SweepProgress):
    """A bar over the generations of all loops on a terminal; plain lines in a log file too."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.ended_loops = self.num_loops = 0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("generations"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=None)

    def begin(self, num_loops: int, num_left: int, num_generations: int) -> None:
        """Start the bar."""
        self.num_loops, self.ended_loops = num_loops, num_loops - num_left
        if self.ended_loops:
            say(self.console, f"{self.ended_loops} of {num_loops} loops have ended before")
        self.bar.update(self.task, total=num_generations, description="loops")
        self.bar.start()

    def shared(self, done: int, count: int) -> None:
        """A line for each."""
        if count:
            say(self.console, f"generation 0 of what loops share: {done} of {count} there")

    def generation(self, loop: Loop, generation: int, metrics: Mapping[str, float]) -> None:
        """Move the bar."""
        self.bar.advance(self.task)

    def retried(self, loop: Loop, why: str) -> None:
        """A line with the cause."""
        say(self.console, ("tried again", "yellow"), f": {loop.run}: {why}")

    def ended(self, loop: Loop, outcome: Outcome) -> None:
        """A line with what became of it."""
        self.ended_loops += 1
        colour = {"done": "green", "stopped": "yellow"}.get(outcome.state, "red")
        fid = f", FID {outcome.fid:.4g}" if outcome.fid is not None else ""
        why = f": {outcome.why}" if outcome.why else ""
        say(
            self.console,
            f"{self.ended_loops}/{self.num_loops} ",
            (outcome.state, colour),
            f" {loop.run}, generation {outcome.generation}{fid}{why}",
        )

    def end(self) -> None:
        """Take the bar away."""
        self.bar.stop()
