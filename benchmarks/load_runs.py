"""How long it takes to read loops back, from MLflow and from run folders, and how that grows with their number.

    python benchmarks/load_runs.py            # 100 to 1,000 loops of 5 generations and 30 metrics: minutes
    python benchmarks/load_runs.py --quick

Fills run folders and a SQLite MLflow through the loop's own tracker and reads both into frames, which must be the same.
CPU seconds of this process, which does all the work, the least of three: what else the machine does hardly shows. The
exponent is the slope of log seconds over log loops: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from autophagy.common.records import GenerationRecord
from autophagy.common.seeds import rng_for
from autophagy.config import Experiment
from autophagy.config.settings import flatten
from autophagy.metrics import METRICS
from autophagy.recipes.loops import lsf_digits, variant
from autophagy.runs.folder import EXPERIMENT, RECORDS, RunFolder
from autophagy.runs.frames import runs_frame
from autophagy.store import StageStore
from autophagy.tracking.mlflow import MLflowTracker
from autophagy.tracking.reading import mlflow_frame
from autophagy.tracking.tracker import RunInfo

GENERATIONS, NUM_METRICS = 5, 30
FULL, QUICK = (100, 200, 500, 1000), (10, 20, 40)


def main() -> None:
    """Print seconds by number of loops, and the exponents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 to 40 loops")
    sizes = QUICK if parser.parse_args().quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        table = pd.DataFrame(
            [measured(Path(folder), size, filled) for filled, size in zip((0, *sizes), sizes, strict=False)]
        )
    print(table.round(2).to_string(index=False))
    for name in ("run folders", "MLflow"):
        slope = np.polyfit(np.log(table["loops"]), np.log(table[name]), 1)[0]
        print(f"{name}: seconds grow as loops^{slope:.2f}")


def measured(folder: Path, size: int, filled: int) -> dict[str, float]:
    """CPU seconds of every way to read `size` loops, of which `filled` are there already."""
    store, uri = StageStore(folder / "store"), f"sqlite:///{folder}/mlflow.db"
    start = time.process_time()
    for index in range(filled, size):
        fill(store, uri, index)
    filling = (time.process_time() - start) / (size - filled)
    row = {"loops": size, "filling, s per loop": filling}
    row["run folders"], frame = timed(lambda: runs_frame(store))
    row["MLflow"], tracked = timed(lambda: mlflow_frame(uri, "autophagy"))
    pd.testing.assert_frame_equal(frame, tracked)
    return row


def fill(store: StageStore, uri: str, index: int) -> None:
    """Record one loop as `run_loop` does, with random numbers."""
    seed = index % 5
    name = f"arm{index // 5}-seed{seed}"
    experiment = variant(lsf_digits(), name, f"seed={seed}", f"generations={GENERATIONS - 1}")
    records = made_up(experiment)
    RunFolder(store, name).write(EXPERIMENT, yaml.safe_dump(experiment.model_dump(mode="json")).encode())
    RunFolder(store, name).write(RECORDS, b"".join(json.dumps(r.to_json()).encode() + b"\n" for r in records))
    tracker = MLflowTracker(uri)
    dataset: Mapping[str, str | int] = {"source": "digits", "digest": "made up", "num_real": 1348, "num_held_out": 449}
    params = flatten(experiment.model_dump(mode="json"))
    tracker.start(RunInfo(name, experiment.digest + name, params, {"autophagy.seed": str(seed)}, dataset))
    tracker.log(records)
    tracker.finish(records, (), complete=True)


def made_up(experiment: Experiment) -> list[GenerationRecord]:
    """Records with NUM_METRICS metrics a generation."""
    rng = rng_for(experiment.seed, experiment.name)
    seconds = {"select": 0.25, "train": 9.5, "generate": 66.125, "evaluate": 1.75}
    keys = list(METRICS)[:NUM_METRICS]
    return [
        GenerationRecord(
            k, dict(zip(keys, rng.random(NUM_METRICS), strict=True)) | {"generation": float(k)}, {}, seconds
        )
        for k in range(GENERATIONS)
    ]


def timed(read: Callable[[], pd.DataFrame]) -> tuple[float, pd.DataFrame]:
    """Least CPU seconds of three calls, and their result."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        frame = read()
        seconds.append(time.process_time() - start)
    return min(seconds), frame


if __name__ == "__main__":
    main()
