"""What a person sees of a running loop or sweep: live lines, bars, a row a generation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.spinner import Spinner

from autophagy.cli.console import plain, say
from autophagy.common.records import GenerationRecord
from autophagy.config.expand import PlannedLoop
from autophagy.engine.watcher import Watcher
from autophagy.runs.outcomes import Outcome
from autophagy.sweeps.progress import SweepProgress

COLUMNS = ("fid", "precision", "recall", "confidence", "entropy", "real_share")


class ConsoleProgress(Watcher):
    """Live lines on a terminal, plain lines in a log file; stages that were done already take no line."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.header_shown = False
        self.computed = 0  # stages built since the start

    @contextmanager
    def building(self, what: str, expected: Callable[[], float | None]) -> Iterator[None]:
        """A live line with the seconds so far and to expect."""
        seconds = expected()
        about = "" if seconds is None else f" of about {seconds:.0f}"
        start = time.monotonic()

        def line() -> Spinner:
            return Spinner("dots", plain(f" {what} ... {time.monotonic() - start:.0f}{about} s"))

        with Live(get_renderable=line, console=self.console, refresh_per_second=4, transient=True):
            yield
        self.computed += 1
        if not self.console.is_terminal:
            say(self.console, f"{what}: {time.monotonic() - start:.1f} s")

    def waits(self, message: str) -> None:
        """A line."""
        say(self.console, (message, "dim"))

    def generation(self, record: GenerationRecord) -> None:
        """A table row; the header goes with the first."""
        if not self.header_shown:
            names = "".join(f"{name:>{_width(name)}}" for name in COLUMNS)
            say(self.console, (f"generation{names} seconds", "bold"))
            self.header_shown = True
        values = "".join(f"{_short(record.metrics.get(name, math.nan)):>{_width(name)}}" for name in COLUMNS)
        took = sum(record.seconds.values())
        say(self.console, f"{record.generation:>10}{values}{took:>8.1f}")


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _width(name: str) -> int:
    return max(10, len(name) + 1)


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

    def generation(self, loop: PlannedLoop, generation: int, metrics: Mapping[str, float]) -> None:
        """Move the bar."""
        self.bar.advance(self.task)

    def retried(self, loop: PlannedLoop, why: str) -> None:
        """A line with the cause."""
        say(self.console, ("tried again", "yellow"), f": {loop.run}: {why}")

    def ended(self, loop: PlannedLoop, outcome: Outcome) -> None:
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
