"""What is between two steps of a stream stays small, however slow the second one is."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from autophagy.common.section import Section
from autophagy.engine.job import Job, Resources
from autophagy.engine.stage import Stage
from autophagy.engine.stream import UNDER_WAY_BYTES, stream
from autophagy.store import StageStore

COUNT, BYTES = 60, 16 << 20  # four times as much as may be under way


@pytest.mark.slow
def test_a_slow_scorer_does_not_let_images_pile_up(local_ray, tmp_path):
    seen, waiting = tmp_path / "seen", []
    seen.mkdir()

    class Make:
        """16 MB a row, at once."""

        def __init__(self, job: Job) -> None: ...

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            (seen / f"made-{batch['row'][0]}").touch()
            return {"row": batch["row"], "image": np.zeros((1, BYTES), np.uint8)}

    class Score:
        """Takes its time, and counts how many rows are made and not scored."""

        def __init__(self, job: Job) -> None: ...

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            time.sleep(0.1)
            (seen / f"scored-{batch['row'][0]}").touch()
            made, scored = (len(list(seen.glob(f"{what}-*"))) for what in ("made", "scored"))
            return {"waiting": np.array([made - scored])}

    def build(job: Job) -> None:
        rows = [{"row": row} for row in range(COUNT)]
        waiting.extend(int(row["waiting"]) for row in stream(job, rows, Make, Score)[0])

    stage = Stage("stream", build, Section(), resources=Resources(num_actors=1), place="driver")
    stage.ensure(StageStore(tmp_path / "store"))
    assert len(waiting) == COUNT
    assert max(waiting) * BYTES <= 1.25 * UNDER_WAY_BYTES
    assert max(waiting) > 1, "the steps overlap"
