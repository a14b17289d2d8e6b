"""A sweep of many tiny loops, against an MLflow server: what grows with their number, and how fast.

    python benchmarks/many_loops.py                     # 20, 100 and 500 loops: a quarter of an hour on 2 idle cores
    python benchmarks/many_loops.py --loops 20 60       # minutes

For each number of loops, in a store and an MLflow server of their own: `autophagy sweep` in a fresh process, over five
strategies, four keep ratios and as many seeds as it takes. The loops of a seed share generation 0; in generation 1 they
select, train, generate 64 images of 8x8 and measure. The networks are the smallest there are: what is left is the
platform. CPU seconds are those of all processes of the sweep, Ray's included, without the server's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from processes import Watch, figure, markdown, mlflow_server

NAME = "many"
STRATEGIES = ("random", "class_balanced_random", "oldest_first", "lsf", "greedy")
KEEP_RATIOS = (1.0, 0.5, 0.33, 0.25)
A_SEED = len(STRATEGIES) * len(KEEP_RATIOS)  # loops
BASE: dict[str, Any] = {
    "generations": 1,
    "budget": 16,
    "data": {"source": "digits", "image_size": 8, "num_real": 64, "num_held_out": 64},
    "model": {"block_out_channels": [4]},
    "training": {"initial_epochs": 1, "epochs": 1, "global_batch_size": 16, "precision": "float32", "num_workers": 0},
    "generation": {"num_inference_steps": 1, "shard_size": 64, "precision": "float32", "num_actors": 0},
    "metrics": {"feature_network": "pixels", "num_samples": 64},
}


def main() -> None:
    """Print a table: a column for each number of loops, and what one more loop adds between the last two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", type=int, nargs="+", default=[20, 100, 500], help=f"multiples of {A_SEED}")
    sizes = sorted(parser.parse_args().loops)
    if any(size < A_SEED or size % A_SEED for size in sizes):
        parser.error(f"--loops: use multiples of {A_SEED}")
    columns: list[dict[str, float]] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            columns.append(measured(Path(folder), size // A_SEED))
        print(f"{size} loops: {columns[-1]['wall s']:.0f} s", file=sys.stderr, flush=True)
    head = ["", *(f"{size} loops" for size in sizes)]
    rows = [[name, *(figure(column[name]) for column in columns)] for name in columns[0]]
    if len(sizes) > 1:
        head.append("a further loop")
        for row in rows:
            slope = (columns[-1][row[0]] - columns[-2][row[0]]) / (sizes[-1] - sizes[-2])
            row.append(figure(slope))
    print(markdown(head, rows))


def measured(folder: Path, num_seeds: int) -> dict[str, float]:
    """Run a sweep over so many seeds; what it cost, and what it left."""
    recipe, store = folder / f"{NAME}.yaml", folder / "store"
    axes = {"selection.strategy": list(STRATEGIES), "keep_ratio": list(KEEP_RATIOS)}
    sweep = {"question": "What does a loop cost?", "base": BASE, "axes": axes, "seeds": list(range(num_seeds))}
    recipe.write_text(yaml.safe_dump(sweep))
    with mlflow_server(folder) as (uri, server_id):
        command = [sys.executable, "-m", "autophagy", "sweep", str(recipe), "--store", str(store)]
        command += ["--tracking-uri", uri]
        start = time.perf_counter()
        with (folder / "sweep.log").open("wb") as log:
            driver = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
        with Watch(driver.pid, "driver") as sweeping, Watch(server_id, "server") as server:
            code = driver.wait()
            wall = time.perf_counter() - start
        if code:
            raise SystemExit((folder / "sweep.log").read_text()[:4000])
        count = A_SEED * num_seeds
        return {
            "wall s": wall,
            "wall s a loop": wall / count,
            "CPU s": sweeping.cpu(),
            "CPU s a loop": sweeping.cpu() / count,
            "CPU s of the driver": sweeping.cpu("driver"),
            "CPU s of loops' processes": sweeping.cpu("trial"),
            "CPU s of pooled processes": sweeping.cpu("worker"),
            "CPU s of Ray's own processes": sweeping.cpu("gcs", "raylet", "dashboard"),
            "driver, peak MB": sweeping.peak("driver"),
            "largest process of a loop, peak MB": sweeping.peak("trial"),
            "processes of loops": sweeping.count("trial"),
            "pooled processes": sweeping.count("worker"),
            **of_store(str(store), count),
            "MLflow server, peak MB": max(seen.peak for seen in server.seen.values()),
            "MLflow server, CPU s": server.cpu(),
            **of_mlflow(uri, count),
            "MLflow database, MB": (folder / "mlflow.db").stat().st_size / 1e6,
        }


def environment() -> Mapping[str, str]:
    """Of a sweep that starts a Ray of its own."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}


def of_store(path: str, count: int) -> dict[str, float]:
    """What is in a store, and how long it takes to look; every loop must be whole."""
    from autophagy.runs.frames import sweep_frame
    from autophagy.store import StageStore
    from autophagy.store.upkeep import ls

    sizes = [os.path.getsize(Path(where, file)) for where, _, files in os.walk(path) for file in files]
    store = StageStore(path)
    start = time.perf_counter()
    stages = ls(store)
    listed = time.perf_counter()
    frame = sweep_frame(store, NAME)
    framed = time.perf_counter()
    assert len(frame) == 2 * count, f"{len(frame)} generations of {2 * count}"
    assert set(frame["state"]) == {"done"}
    return {
        "stages in the store": len(stages),
        "files in the store": len(sizes),
        "MB in the store": sum(sizes) / 1e6,
        "`store ls`, s": listed - start,
        "`sweep_frame`, s": framed - listed,
    }


def of_mlflow(uri: str, count: int) -> dict[str, float]:
    """How long it takes to find the runs; every loop must be there to its end."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(NAME)
    start = time.perf_counter()
    runs = client.search_runs([experiment.experiment_id], max_results=50_000)
    seconds = time.perf_counter() - start
    finished = [run for run in runs if run.info.status == "FINISHED"]
    assert len(finished) == count + 1, f"{len(finished)} of {count + 1} runs are finished in MLflow"
    return {"runs in MLflow": len(runs), "one search over all runs, s": seconds}


if __name__ == "__main__":
    main()
