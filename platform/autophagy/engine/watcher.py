"""Who is told how the stages of a loop go."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from autophagy.common.records import GenerationRecord


class Watcher:
    """Is told how stages and generations go, and shows nothing."""

    def building(self, what: str, expected: Callable[[], float | None]) -> AbstractContextManager[None]:
        """Around the building of a stage; its inputs are there by then.

        Args:
            what: The stage, for people.
            expected: Gives the seconds that it is expected to take; None if nothing is known.
        """
        return nullcontext()

    def waits(self, message: str) -> None:
        """Another process builds a stage that is needed."""

    def generation(self, record: GenerationRecord) -> None:
        """A generation is finished."""
