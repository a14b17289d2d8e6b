"""What a person sees of a running loop: one live line per stage, one table row per generation."""

from __future__ import annotations

import math
import time
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from autophagy.printing import plain, say
from autophagy.records import GenerationRecord
from autophagy.stages import Stage, seconds
from autophagy.store import Artifact, StageStore

COLUMNS = ("fid", "precision", "recall", "confidence", "entropy", "real_share")


class Progress(Protocol):
    """How a loop's stages are carried out in front of somebody."""

    def follow(self, stage: Stage, store: StageStore) -> Artifact:
        """Ensure a stage and show how it goes."""

    def generation(self, record: GenerationRecord) -> None:
        """Show a finished generation."""


class Silent:
    """Shows nothing."""

    def follow(self, stage: Stage, store: StageStore) -> Artifact:
        """Ensure a stage."""
        return stage.ensure(store)

    def generation(self, record: GenerationRecord) -> None:
        """Show nothing."""


class ConsoleProgress:
    """Live lines on a terminal, plain lines in a log file; stages that were done already take no line."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.header_shown = False
        self.computed = 0  # stages built since the start

    def follow(self, stage: Stage, store: StageStore) -> Artifact:
        """Ensure a stage under a live line with the seconds so far and, from the store's history, to expect."""
        if store.is_done(stage.name, stage.key):
            return stage.ensure(store, wait=self._say)
        what = stage.name.replace("_", " ") + ("" if stage.generation is None else f" of generation {stage.generation}")
        expected = stage.expected(store.history(stage.name), seconds)
        about = "" if expected is None else f" of about {expected:.0f}"
        start = time.monotonic()

        def line() -> Spinner:
            return Spinner("dots", plain(f" {what} ... {time.monotonic() - start:.0f}{about} s"))

        with Live(get_renderable=line, console=self.console, refresh_per_second=4, transient=True):
            artifact = stage.ensure(store, wait=self._say)
        self.computed += 1
        if not self.console.is_terminal:
            say(self.console, f"{what}: {time.monotonic() - start:.1f} s")
        return artifact

    def generation(self, record: GenerationRecord) -> None:
        """A table row; the header goes with the first."""
        if not self.header_shown:
            names = "".join(f"{name:>{_width(name)}}" for name in COLUMNS)
            say(self.console, (f"generation{names} seconds", "bold"))
            self.header_shown = True
        values = "".join(f"{_short(record.metrics.get(name, math.nan)):>{_width(name)}}" for name in COLUMNS)
        took = sum(record.seconds.values())
        say(self.console, f"{record.generation:>10}{values}{took:>8.1f}")

    def _say(self, message: str) -> None:
        say(self.console, (message, "dim"))


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _width(name: str) -> int:
    return max(10, len(name) + 1)
