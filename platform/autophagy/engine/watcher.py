"""Who is told how the stages of a loop go."""

from __future__ import annotations

from typing import Protocol

from autophagy.common.records import GenerationRecord
from autophagy.engine.stage import Stage
from autophagy.store import Artifact, StageStore


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
