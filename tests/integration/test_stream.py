"""Streams: a row goes through all steps in one process, and a process that has a GPU is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from autophagy.common.section import Section
from autophagy.engine.job import Job, Resources
from autophagy.engine.stage import Stage
from autophagy.engine.stream import stream
from autophagy.store import StageStore


@pytest.mark.parametrize("num_actors", [0, 2])
def test_every_row_goes_through_all_steps_in_one_process(local_ray, tmp_path, num_actors):
    found = []

    class Make:
        """Says in which process."""

        def __init__(self, job: Job) -> None: ...

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {"row": batch["row"], "made": np.array([os.getpid()])}

    class Score:
        """Says in which process, too."""

        def __init__(self, job: Job) -> None:
            self.factor = 10

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {"row": self.factor * batch["row"], "made": batch["made"], "scored": np.array([os.getpid()])}

    def build(job: Job) -> dict[str, Any]:
        rows, info = stream(job, [{"row": row} for row in range(8)], Make, Score)
        found.extend(rows)
        return info

    stage = Stage("stream", build, Section(), resources=Resources(num_actors=num_actors), place="driver")
    artifact = stage.ensure(StageStore(tmp_path / "store"))
    assert sorted(int(row["row"]) for row in found) == [10 * row for row in range(8)]
    assert all(row["made"] == row["scored"] != os.getpid() for row in found)
    assert {key for row in found for key in row} == {"row", "made", "scored"}
    assert 0 <= artifact.info["device_seconds"] < 60


GPU_WORK = """
import os, ray, tempfile
from autophagy.common.section import Section
from autophagy.engine.job import Job, Resources
from autophagy.engine.stream import stream
from autophagy.engine.workers import run_in_worker

ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)

class Where:
    def __init__(self, job): ...
    def __call__(self, batch):
        return {"pid": batch["row"] * 0 + os.getpid()}

print(*{run_in_worker(os.getpid, num_gpus=1) for _ in range(4)})
job = Job(Section(), {}, None, None, "", resources=Resources(use_gpu=True))
print(*{int(row["pid"]) for row in stream(job, [{"row": row} for row in range(6)], Where)[0]})
"""


def test_a_process_that_has_a_gpu_is_kept_for_the_next_call():
    """The GPU is one in Ray's books; starting a process for each call would cost seconds of a real one."""
    done = subprocess.run([sys.executable, "-c", GPU_WORK], capture_output=True, text=True, timeout=300)
    assert [len(line.split()) for line in done.stdout.splitlines()] == [1, 1], done.stdout + done.stderr
